"""The trainings of a queue: `fewshotseg-train fit` commands in the code blocks of a Markdown file.

Places stand in braces: {cache} for the folder of prepared sets, {runs} for that of runs, {weights} for the ImageNet weights.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from FewShotSegLib.errors import ConfigError

BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
START = ["fewshotseg-train", "fit"]
PAUSED = 75  # exit code of a `fit` whose time was over (EX_TEMPFAIL)
OUTCOMES = ("encoder.safetensors", "flow.safetensors")


@dataclass(frozen=True)
class Places:
    """Where things are on this machine."""

    cache: Path
    runs: Path
    weights: Path

    def fill(self, word: str) -> str:
        """A word of a command with the places put in."""
        for name in ("cache", "runs", "weights"):
            word = word.replace(f"{{{name}}}", str(getattr(self, name)))
        return word


@dataclass(frozen=True)
class Training:
    """One training: `name` of its run, the words after `fit`, and the text that stands above it."""

    name: str
    words: tuple[str, ...]
    text: str = ""

    @property
    def sets(self) -> tuple[str, ...]:
        """The prepared sets that it reads."""
        return tuple(word.removeprefix("{cache}/") for word in self.words if word.startswith("{cache}/"))

    @property
    def bases(self) -> tuple[str, ...]:
        """The runs that must be finished before, by name."""
        used = [word.split("/")[1] for word in self.words if word.startswith("{runs}/")]
        return tuple(name for name in dict.fromkeys(used) if name != self.name)

    @property
    def wants_weights(self) -> bool:
        """Whether it starts from the ImageNet weights."""
        return "{weights}" in self.words

    def state(self, runs: Path) -> str:
        """`finished`, `step 20 of 450`, `waits for NAME` or `waiting`."""
        if self.finished(runs):
            return "finished"
        lacking = [name for name in self.bases if not is_finished(runs / name)]
        if lacking:
            return f"waits for {', '.join(lacking)}"
        try:
            said = json.loads((runs / self.name / "progress.json").read_text(encoding="utf-8"))
            return f"step {said['step']} of {said['steps']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "waiting"

    def finished(self, runs: Path) -> bool:
        """Whether its weights are there."""
        return is_finished(runs / self.name)

    def ready(self, runs: Path) -> bool:
        """Whether it can run now, and has not yet."""
        return not self.finished(runs) and all(is_finished(runs / name) for name in self.bases)


def is_finished(run: Path) -> bool:
    """Whether a folder holds a finished run: weights are written at its end only."""
    return any((run / name).exists() for name in OUTCOMES)


def read_queue(path: Path) -> list[Training]:
    """The trainings of a queue file, in their order.

    Raises:
        ConfigError: the file cannot be read, a command is not a `fit` into {runs}, or two have the same folder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The queue {path} cannot be read ({error})", "a Markdown file with commands in code blocks") from error
    found: list[Training] = []
    before = 0
    for block in BLOCK.finditer(text):
        above = text[before : block.start()].strip()
        before = block.end()
        for line in block[1].replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                found.append(_training(line, above))
    names = [training.name for training in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path.name} trains into the same folder twice: {', '.join(twice)}", "a folder of its own for each")
    return found


def _training(line: str, text: str) -> Training:
    words = shlex.split(line)
    outs = [after for word, after in zip(words, words[1:], strict=False) if word == "--out"]
    if words[:2] != START or len(outs) != 1 or not re.fullmatch(r"\{runs\}/[\w.-]+", outs[0]):
        raise ConfigError(f"The queue's line `{line.strip()}`", "fewshotseg-train fit {cache}/SET ... --out {runs}/NAME ...")
    return Training(outs[0].removeprefix("{runs}/"), tuple(words[2:]), text)
