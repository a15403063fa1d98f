"""A list of scans: where the drawing alone leaves a scan unsure, the surest results of the others teach as well.

The drawn patient may differ much from the next one; the other patients of a list often lie between the two. So a list is
segmented once after the drawings alone, and its unsure scans once more, with the surest results of others as further supports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from FewShotSegLib.methods.match import Match
from FewShotSegLib.progress import OnProgress, ShouldCancel
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, Solved, is_same_scan
from FewShotSegLib.support import Support
from FewShotSegLib.turns import AS_IT_IS, Turn
from FewShotSegLib.volume import Volume

UNSURE = 0.7  # certainty of a result below which its scan is segmented again
SURE = 0.6  # certainty from which a result may teach
RELAYS = 2  # results that teach beside the drawings
CLEARLY = 0.05  # by how much surer a second result must be to be taken; more supports alone make a little surer


@dataclass(frozen=True, eq=False)
class _Relay:
    """A result that may teach."""

    query: Volume
    done: Segmentation

    @cached_property
    def support(self) -> Support:
        """The result as a drawing of the whole scan."""
        masks = np.stack([self.done.mask(organ) for organ in self.done.organs])
        return Support.create(self.query, masks, self.done.organs, slices="all")


@dataclass(frozen=True)
class First:
    """What is remembered of an unsure first result."""

    certainty: float
    seconds: float


class ScanList:
    """Segments the scans of a list after the same drawings: each by `first`, and then those that are `unsure` by `again`.

    The surest results stay in memory, with their scans, and no others.

    Args:
        segmenter: with which; only `match` is taught by results, and only where its configuration says so (`relays`).
        supports: the drawings.
        count: how many scans the list has.
    """

    def __init__(self, segmenter: Segmenter, supports: Sequence[Support], count: int) -> None:
        self.segmenter, self.supports = segmenter, list(supports)
        self.unsure: dict[int, First] = {}
        """What is known of the scans to be segmented again, by their number, in the order of their coming."""
        self._helps = segmenter.config.relays and isinstance(segmenter.method, Match) and count > 1
        self._relays: dict[int, _Relay] = {}

    def first(
        self, number: int, query: Volume, *, progress: OnProgress | None = None, cancel: ShouldCancel | None = None
    ) -> Segmentation:
        """Segment scan `number` after the drawings alone. Raises as `Segmenter.segment`."""
        turns: list[Turn] = []

        def look(solved: Solved) -> None:
            turns.append(solved.turn)

        done = self.segmenter.segment(self.supports, query, progress=progress, cancel=cancel, inspect=look)
        lies_alike = turns == [AS_IT_IS]
        if self._helps and lies_alike and not any(is_same_scan(s.image, query) for s in self.supports):
            self._consider(number, query, done)
        return done

    def can_help(self, number: int) -> bool:
        """Whether another scan's result is sure enough to teach this one."""
        return bool(self._others(number))

    def again(
        self,
        number: int,
        query: Volume,
        *,
        progress: OnProgress | None = None,
        cancel: ShouldCancel | None = None,
    ) -> Segmentation | None:
        """Segment an unsure scan that `can_help` speaks of, taught by the surest results of others as well.

        Returns:
            The result, whose note names them, and whose seconds are those of both times. None where it is not clearly surer than
            the first one, or where the others are the same scan, which is twice in the list.

        Raises as `Segmenter.segment`.
        """
        relays = [relay for relay in self._others(number) if not is_same_scan(relay.query, query)]
        if not relays:
            return None
        taught = [*self.supports, *(relay.support for relay in relays)]
        done = self.segmenter.segment(taught, query, progress=progress, cancel=cancel)
        first = self.unsure[number]
        if done.certainty < first.certainty + CLEARLY:
            return None
        return replace(
            done, seconds=first.seconds + done.seconds, notes=(*done.notes, _note([relay.query.name for relay in relays]))
        )

    def _consider(self, number: int, query: Volume, done: Segmentation) -> None:
        """Keep a result that is among the surest, and remember an unsure scan."""
        if done.certainty < UNSURE:
            self.unsure[number] = First(done.certainty, done.seconds)
        if done.certainty < SURE or np.isnan(done.confidence).any():
            return
        self._relays[number] = _Relay(query, done)
        if len(self._relays) > RELAYS + 1:  # one more than teach, as one of them may be the scan in question
            del self._relays[self._ranked()[-1]]

    def _others(self, number: int) -> list[_Relay]:
        return [self._relays[other] for other in self._ranked() if other != number][:RELAYS]

    def _ranked(self) -> list[int]:
        """Numbers of the kept results, the surest first."""
        return sorted(self._relays, key=lambda number: -self._relays[number].done.certainty)


def _note(names: Sequence[str]) -> str:
    listed, more = " and ".join(name or "another scan" for name in names), "s" if len(names) > 1 else ""
    return f"Unsure after the drawing alone: the result{more} in {listed}, which nobody corrected, taught as well."
