"""Which support slice teaches which query slice. One function, `answer`, chooses by method, strategy and task."""

from __future__ import annotations

from FewShotSegLib.strategies.answer import NAMES, Answer, Extents, Task, answer

__all__ = ["NAMES", "Answer", "Extents", "Task", "answer"]
