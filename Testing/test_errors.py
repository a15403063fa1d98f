"""Errors say what was found, what was expected and what to do."""

from __future__ import annotations

import pickle

import pytest

from FewShotSegLib import errors


def test_an_error_reads_as_three_sentences() -> None:
    error = errors.VolumeError("a.nii is cut off", "a whole file", "copy it again")
    assert str(error) == "a.nii is cut off. Expected: a whole file. What to do: copy it again."
    assert (error.found, error.expected, error.action) == ("a.nii is cut off", "a whole file", "copy it again")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("Found",), "Found."),
        (("Found.", "", "Act!"), "Found. What to do: Act!"),
        (("Which one?", "one series"), "Which one? Expected: one series."),
    ],
)
def test_empty_parts_and_full_stops_are_not_repeated(parts: tuple[str, ...], text: str) -> None:
    assert str(errors.ConfigError(*parts)) == text


@pytest.mark.parametrize("name", ["VolumeError", "SupportError", "CheckpointError", "OutputError", "ConfigError", "Cancelled"])
def test_every_error_can_be_caught_as_ours_and_crosses_process_borders(name: str) -> None:
    error = getattr(errors, name)("found", "expected", "action")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, errors.FewShotSegError)
    assert type(copy) is type(error)
    assert str(copy) == str(error) == "found. Expected: expected. What to do: action."


def test_cancelled_needs_no_words() -> None:
    assert str(errors.Cancelled()) == "The job was cancelled."
