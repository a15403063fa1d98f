"""What the text of an option means."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from FewShotSegLib.errors import ConfigError

if TYPE_CHECKING:
    from FewShotSegLib.job import Drawing

NUMBER = re.compile(r"\d+")


def slices(text: str) -> Literal["auto", "all"] | tuple[int, ...]:
    """What --support-slices says: "auto", "all", or slice numbers such as "17,30" or "3-7,12"."""
    if text == "auto":
        return "auto"
    if text == "all":
        return "all"
    numbers: list[int] = []
    for part in text.split(","):
        ends = part.strip().split("-")
        if len(ends) > 2 or not all(NUMBER.fullmatch(end.strip()) for end in ends):
            raise ConfigError(f"Slices {text!r}", "auto, all, or numbers such as 17,30 or 3-7", "correct the slices")
        numbers += range(int(ends[0]), int(ends[-1]) + 1)
    return tuple(numbers)


def one_each(values: Sequence[str] | None, count: int, default: str, option: str = "--support-slices") -> list[str]:
    """One value for each of `count` supports: as given, or the only one (or the default) for all of them."""
    given = list(values or [default])
    if len(given) not in (1, count):
        raise ConfigError(f"{len(given)} times {option} for {count} supports", f"one for all, or {count}")
    return given if len(given) == count else given * count


def drawings(
    images: Sequence[Path], labels: Sequence[Path], drawn: Sequence[str] | None, series: Sequence[str] | None = None
) -> tuple[Drawing, ...]:
    """The supports that --support-image, -labels, -slices and -series name together."""
    from FewShotSegLib.job import Drawing

    if len(images) != len(labels):
        raise ConfigError(f"{len(images)} support images and {len(labels)} support labels", "one labels file each")
    each = [slices(text) for text in one_each(drawn, len(images), "auto")]
    of_series = one_each(series, len(images), "", "--support-series")
    parts = zip(images, labels, each, of_series, strict=True)
    return tuple(Drawing(image, label, numbers, uid or None) for image, label, numbers, uid in parts)


def organs(values: Sequence[str] | None) -> tuple[tuple[str, ...] | None, dict[int, str]]:
    """Organs to use, None for all, and the names given to label numbers: "liver", "3" or "3=left kidney"."""
    chosen, names = [], {}
    for value in values or []:
        number, sign, name = value.partition("=")
        if sign and NUMBER.fullmatch(number.strip()) and name.strip():
            names[int(number)] = name.strip()
            chosen.append(number.strip())
        else:
            chosen.append(value)
    return tuple(chosen) or None, names


def method_options(values: Sequence[str] | None) -> dict[str, Any]:
    """Options of the method from texts like "sigma=2.5"; numbers, true and false are recognised."""
    found: dict[str, Any] = {}
    for text in values or []:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"Option {text!r}", "key=value", "see `fewshotseg methods`")
        found[key.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
