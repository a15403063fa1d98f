"""Where the files that ship with the library lie: in a checkout, in a wheel and inside Slicer alike."""

from __future__ import annotations

from pathlib import Path

from FewShotSegLib.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent


def resource_dir(kind: str) -> Path:
    """The folder `Resources/<kind>`: inside the package (wheel, Slicer) or beside it (checkout).

    Raises:
        ConfigError: neither exists; the installation is incomplete.
    """
    places = [root / "Resources" / kind for root in (PACKAGE, PACKAGE.parent)]
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(
        f"The folder Resources/{kind} is missing from this installation",
        f"it at {places[0]} or {places[1]}",
        "install fewshotseg again",
    )
