"""A runner for the self-test and the tests: needs no torch, and finds every organ exactly where it was drawn."""

import time

import numpy as np


class PastingRunner:
    """As `FewShotSegLib.background.Runner`: pastes the drawing into every query, slowly, on the grid of each.

    Args:
        steps: polls before each result.
        seconds: that a whole query takes at least.
        fail: message with which every query fails.
        confidence: of the organs, in order.
        notes: of the results, by the names of the scans.
        unsure: names of scans that have their results at the end.
    """

    def __init__(self, steps=2, seconds=0.0, fail="", confidence=(0.9, 0.5, float("nan")), notes=None, unsure=()):
        self.steps, self.seconds, self.fail, self.confidence, self.notes = steps, seconds, fail, confidence, notes or {}
        self.unsure = unsure
        self.jobs, self._events, self._stop, self._begun = [], None, False, 0.0

    @property
    def running(self):
        return self._events is not None

    def start(self, job):
        self.jobs.append(job)
        self._stop, self._events = False, self._work(job)

    def poll(self):
        try:
            return [next(self._events)]
        except StopIteration:
            self._events = None
            return []

    def cancel(self):
        self._stop = True

    def close(self):
        self._events = None

    def _work(self, job):
        from FewShotSegLib.background import CancelledEvent, DoneEvent, FailedEvent, ProgressEvent, ResultEvent, UnsureEvent

        waiting = []
        for number, query in enumerate(job.queries):
            begun = time.monotonic()
            step = 0
            while step < self.steps or time.monotonic() - begun < self.seconds:
                if self._stop:
                    yield CancelledEvent()
                    return
                step += 1
                part = min(step / max(self.steps, 1), 0.99)
                yield ProgressEvent(number, "pasting", (number + part) / len(job.queries), 1.0)
            if self.fail:
                yield FailedEvent(number, self.fail)
            elif query.name in self.unsure:
                waiting.append(number)
                yield UnsureEvent(number)
            else:
                yield ResultEvent(number, self._segmentation(job.supports[0], query))
        for number in waiting:
            yield ProgressEvent(number, "pasting", 0.99, 1.0)
            yield ResultEvent(number, self._segmentation(job.supports[0], job.queries[number]))
        yield DoneEvent()

    def _segmentation(self, support, query):
        from FewShotSegLib.segmentation import Segmentation

        labels = np.zeros(query.array.shape, np.uint8)
        for organ, mask in zip(support.organs, support.masks, strict=True):
            common = tuple(slice(0, min(sizes)) for sizes in zip(mask.shape, labels.shape, strict=True))
            labels[common][mask[common]] = organ.label
        sure = np.resize(np.asarray(self.confidence, float), len(support.organs))
        slices = np.where(np.stack([(labels == o.label).any(axis=(1, 2)) for o in support.organs]), sure[:, None], np.nan)
        notes = tuple(self.notes.get(query.name, ()))
        return Segmentation(query.geometry, support.organs, labels, sure, slices, notes=notes, name=query.name)
