"""What a result was made with: written beside it, so that it can be made again."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from FewShotSegLib.cards import Card
from FewShotSegLib.segmenter import Segmenter

PACKAGES = ("fewshotseg", "torch", "numpy", "SimpleITK", "scipy", "scikit-image")


def versions() -> dict[str, str]:
    """Versions of Python, of this library and of what its numbers depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def record_of(segmenter: Segmenter) -> dict[str, Any]:
    """The frozen configuration of a Segmenter, its method's options, its checkpoint, the device and the versions."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": asdict(segmenter.config),
        "method_options": asdict(segmenter.method.config),
        "checkpoint": _checkpoint(segmenter.card),
        "checkpoint_across_kinds": _checkpoint(segmenter.across.card) if segmenter.across else None,
        "device": str(segmenter.runner.device),
        "versions": versions(),
        "system": platform.platform(),
    }


def _checkpoint(card: Card | None) -> dict[str, str] | None:
    return {"name": card.name, "sha256": card.sha256} if card else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # inside Slicer, or a checkout that was never installed
        return "unknown"
