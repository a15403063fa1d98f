"""Published figures to stand beside ours: mean Dice in percent, oracle-z, five folds, setting 1."""

from __future__ import annotations

PUBLISHED: dict[str, dict[str, float]] = {
    "chaos_t2": {"alpnet": 78.84, "visa": 83.12, "adnet": 78.51, "qnet": 81.02, "rpt": 82.44},
    "sabs_ct": {"alpnet": 73.35, "visa": 77.11, "adnet": 72.97, "rpt": 77.83},
    "cmr": {"adnet": 75.76, "rpt": 79.19},
}
"""By data set and method. ALPNet: Ouyang et al., ECCV 2020; VISA: its paper's table; the others as the RPT paper quotes them
(Zhu et al., MICCAI 2023, table 1, one slice drawn), from memory: check them before they are cited."""


def published(dataset: str, method: str, protocol: str) -> float | None:
    """The published figure that this cell can be compared with, None where there is none."""
    return PUBLISHED.get(dataset, {}).get(method) if protocol == "oracle-z" else None
