"""What goes wrong, told to the person who can do something about it."""

from __future__ import annotations


class FewShotSegError(Exception):
    """Base of all errors of this library: what was found, what was expected, what to do about it.

    `str(error)` reads "found. Expected: expected. What to do: action."; empty parts are left out.
    """

    def __init__(self, found: str, expected: str = "", action: str = "") -> None:
        super().__init__(found, expected, action)
        self.found = found
        self.expected = expected
        self.action = action

    def __str__(self) -> str:
        parts = (("", self.found), ("Expected: ", self.expected), ("What to do: ", self.action))
        return " ".join(title + _as_sentence(text) for title, text in parts if text)


class VolumeError(FewShotSegError):
    """A scan that cannot be read, or whose geometry or voxel values cannot be used."""


class SupportError(FewShotSegError):
    """A drawing that cannot teach anything."""


class CheckpointError(FewShotSegError):
    """Encoder weights that are missing, damaged or do not fit."""


class OutputError(FewShotSegError):
    """A result that cannot be written."""


class ConfigError(FewShotSegError):
    """An unknown method, or an option that does not exist or has an impossible value."""


class Cancelled(FewShotSegError):
    """The user stopped the job."""

    def __init__(self, found: str = "The job was cancelled", expected: str = "", action: str = "") -> None:
        super().__init__(found, expected, action)


def _as_sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
