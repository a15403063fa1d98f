"""What to evaluate: the options of `fewshotseg evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.annotation import SliceRule
from FewShotSegLib.evaluation.baselines import list_baselines
from FewShotSegLib.methods import list_methods
from FewShotSegLib.turns import AS_IT_IS, Turn

Protocol = Literal["oracle-z", "full-volume", "same-scan"]
LAYS = {
    "as-it-is": AS_IT_IS,
    "left-right": Turn(columns=True),
    "front-back": Turn(rows=True),
    "half-turn": Turn(rows=True, columns=True),
    "quarter-turn": Turn(swapped=True, rows=True),
}
"""Ways to lay a query."""

SCORED = {
    "full-volume": "scored: every slice",
    "oracle-z": "scored: the slices from the organ's first to its last",
}


@dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation.

    Args:
        data_dir: folder of labelled scans (see `datasets`).
        method: a method of the library or a baseline.
        strategy: of the published methods, see `SegmenterConfig`.
        options: of the method, see `create_method`.
        protocol: "full-volume": nothing is told about the query and every voxel counts; "oracle-z": the slices on which each
            organ lies are told and only they count, as in the papers; "same-scan": some slices of a scan are drawn, the
            others count.
        slices_drawn: how many slices of each organ are drawn; None for the whole scan (not in "same-scan").
        slice_rule: which slices these are, see `annotation.drawn_slices`.
        support: "last", "all" (each scan in turn teaches the others) or case ids, each in turn.
        shots: so many scans teach together: the last one, and those that follow in the circle of folds (without folds: that stand
            before it).
        support_data: folder of labelled scans that teach instead, organs of the same names: the scans that would be the supports
            there, fold by fold.
        lay: how queries are laid before they are given, and with them their truth: a key of `LAYS`, as if a patient lay
            differently or a file named its axes wrongly.
        place: whether prototype heads are told where `match` sees the organ, too, when they are told its extent; see
            `SegmenterConfig`.
        turns: whether the Segmenter may find that out, see `SegmenterConfig`.
        together: the queries of a support are one list, whose surest results teach its unsure scans as well (see `relays.py`);
            otherwise each query is segmented as if it were the only one.
        folds: True for all five folds, or their numbers; False takes all scans as one list.
        organs: names or label numbers; None for what the dataset scores.
        checkpoint: one for all scans; None for the default one; `untrained`, or `untrained:WEIGHTS`: see `untrained.py`.
        checkpoint_template: name or path with `{fold}`, so that each fold is measured with the model trained without it.
        limit: at most so many scans for each support (in "same-scan", for each fold); None for all.
        seed: of the baselines that sample at random.
        device: "auto", "cpu", "cuda" or "mps".
        json: where to write the result; None for nowhere.

    Raises:
        ConfigError: options that do not exist or do not fit together.
    """

    data_dir: str | Path
    method: str = "match"
    strategy: str = "auto"
    protocol: Protocol = "full-volume"
    slices_drawn: int | None = None
    slice_rule: SliceRule = "spread"
    support: str | tuple[str, ...] = "last"
    shots: int = 1
    support_data: str | Path | None = None
    lay: str = "as-it-is"
    place: bool = True
    turns: bool = True
    together: bool = False
    folds: bool | tuple[int, ...] = False
    organs: tuple[str | int, ...] | None = None
    checkpoint: str | None = None
    checkpoint_template: str | None = None
    limit: int | None = None
    seed: int = 0
    device: str = "auto"
    json: str | Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_choice("method", self.method, (*list_methods(), *list_baselines()))
        _check_choice("protocol", self.protocol, get_args(Protocol))
        _check_choice("slice_rule", self.slice_rule, get_args(SliceRule))
        _check_choice("lay", self.lay, tuple(LAYS))
        for name, least in (("slices_drawn", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} = {value}", f"{least} or more")
        if self.options and self.method in list_baselines():
            raise ConfigError(f"Options for the baseline {self.method}: {dict(self.options)}", "none, they are for methods")
        if self.protocol == "same-scan" and self.slices_drawn is None:
            raise ConfigError("same-scan use without a number of drawn slices", "for example 1, 3 or 5", "set slices_drawn")
        if self.shots != 1 and (self.shots < 1 or self.support != "last" or self.protocol == "same-scan"):
            found = f"shots = {self.shots} with support = {self.support!r}, protocol = {self.protocol!r}"
            raise ConfigError(found, "1 or more; more than 1 with the support 'last' and another protocol than same-scan")
        if LAYS[self.lay] != AS_IT_IS and self.protocol == "same-scan":
            raise ConfigError(f"lay = {self.lay!r} in the same scan", "a protocol with another scan as support")
        if self.support_data is not None and (self.support != "last" or self.protocol == "same-scan"):
            found = f"Supports from {self.support_data} with support = {self.support!r}, protocol = {self.protocol!r}"
            raise ConfigError(found, "the support 'last' and another protocol than same-scan")
        if self.shots != 1 and self.method in list_baselines():
            raise ConfigError(f"{self.shots} shots with the baseline {self.method}", "1: baselines learn from one scan")
        if self.together and (self.protocol == "same-scan" or self.method != "match"):
            raise ConfigError(f"together with {self.method} in {self.protocol}", "the method match, and another scan as support")
        self._check_checkpoints()

    def _check_checkpoints(self) -> None:
        if self.checkpoint_template is None:
            return
        if self.checkpoint is not None or self.folds is False or "{fold}" not in self.checkpoint_template:
            raise ConfigError(
                f"The checkpoint template {self.checkpoint_template!r} with checkpoint={self.checkpoint!r}, folds={self.folds!r}",
                "a template with {fold} in it, folds, and no single checkpoint",
            )

    @property
    def supports(self) -> tuple[str, ...] | None:
        """Case ids of the supports, None when chosen by rule ("last", "all")."""
        if isinstance(self.support, str):
            return None if self.support in ("last", "all") else tuple(part.strip() for part in self.support.split(","))
        return self.support

    def checkpoint_for(self, fold: int | None) -> str | None:
        """The checkpoint of a fold; None for the default one."""
        if self.checkpoint_template is not None:
            return self.checkpoint_template.replace("{fold}", str(fold))
        return self.checkpoint

    @property
    def described(self) -> str:
        """The protocol in words: what was given, and what is scored."""
        drawn = "all slices" if self.slices_drawn is None else f"{self.slices_drawn} slices of each organ ({self.slice_rule})"
        folds = "no folds" if self.folds is False else "five folds" if self.folds is True else f"folds {list(self.folds)}"
        models = "each with its own model" if self.checkpoint_template else "one model for all"
        if self.protocol == "same-scan":
            return f"same-scan, {drawn} drawn; scored: the slices not drawn. {folds}, {models}."
        support = {"last": "the last scan", "all": "each scan in turn"}.get(str(self.support), f"scans {self.support}")
        if self.shots > 1:
            support = f"{self.shots} scans together, {'from the last one on' if self.folds else 'the last ones'}"
        if self.support_data is not None:
            support += f" of {Path(self.support_data).resolve().name}, in place of that"
        laid = "" if LAYS[self.lay] == AS_IT_IS else f" Queries are laid {self.lay}."
        if self.together:
            laid += " The queries of a support are segmented as one list."
        taught = f"Support: {support} of the list, {drawn} drawn. {folds}, {models}."
        return f"{self.protocol}, {SCORED[self.protocol]}. {taught}{laid}"

    def to_json(self) -> dict[str, Any]:
        """The options as a JSON object."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} = {value!r}", f"one of {', '.join(known)}")
