"""The same run on a Ray cluster: one model per GPU (or per machine), every case done once, also when machines are lost."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from FewShotSegLib.cohort.case import ShouldCancel, open_worker
from FewShotSegLib.cohort.cluster_worker import AHEAD, ClusterWorker, Opener
from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.history import sweep
from FewShotSegLib.cohort.locks import Locks, break_lock_of
from FewShotSegLib.cohort.manifest import Case
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.errors import Cancelled, ConfigError, FewShotSegError

LOCAL = "local"
POLL_SECONDS = 0.1
MOST_LOSSES = 3  # of workers at one case, or at opening one after the other
STOP_SECONDS = 20.0
PATIENCE_SECONDS = 900.0  # without any worker, while lost machines come back


@dataclass(frozen=True)
class RayExecutor:
    """An `Executor` on a Ray cluster. Scans, supports, checkpoint and output lie in folders that all its machines share.

    Every worker is given the next case when it has fewer than two, so no machine holds more than two scans and none waits for
    another. A worker that is lost is replaced as soon as there is room; its cases are done again, unless their results were
    written already.

    Args:
        address: of the cluster, "host:port"; "auto" for that of this machine; "local" starts one here.
        workers: how many; 0 for one per GPU, else one per machine.
        cpus: cores of each; 0 for all of the smallest machine, or none in particular beside a GPU.
        opener: opens a worker.
    """

    address: str = "auto"
    workers: int = 0
    cpus: int = 0
    opener: Opener = open_worker

    def __call__(self, cases: Sequence[Case], config: CohortConfig, cancelled: ShouldCancel) -> Iterator[CaseRecord]:
        """See `run.Executor`.

        Raises:
            ConfigError: Ray is not installed, the cluster does not answer or has no room, or the folders are not shared.
            FewShotSegError: workers cannot be opened, or nothing can be written. Cancelled.
        """
        if config.devices:
            raise ConfigError(
                f"Devices {', '.join(config.devices)} on a cluster", "the cluster shares them out", "leave them out"
            )
        with _connected(self.address) as ray:
            pool = _Pool(ray, self._remote(ray, config), config)
            try:
                yield from pool.run(cases, cancelled)
            finally:
                pool.close()

    def _remote(self, ray: ModuleType, config: CohortConfig) -> _Kind:
        """What each worker asks of the cluster, and how many there are."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not nodes:
            raise ConfigError(f"The cluster {self.address} has no machine with a free core", "one at least", "start its machines")
        gpus = 0 if config.segmenter.device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
        cores = self.cpus or (1 if gpus else int(min(node["CPU"] for node in nodes)))
        rooms = gpus or int(sum(node["CPU"] // cores for node in nodes))
        if not rooms:
            raise ConfigError(f"Workers of {cores} cores", f"at most {int(max(n['CPU'] for n in nodes))}, as the machines have")
        options = {
            "num_cpus": cores,
            "num_gpus": 1 if gpus else 0,
            "max_concurrency": AHEAD + 1,  # and `stop`
            "scheduling_strategy": "SPREAD",
        }
        return _Kind(ray.remote(ClusterWorker).options(**options), self.opener, self.workers or rooms)


@dataclass(frozen=True)
class _Kind:
    """The actors of a run: how to make one, how it opens its worker, how many."""

    remote: Any
    opener: Opener
    count: int


@dataclass(eq=False)
class _Member:
    """One actor: `token` of its locks once it is open; `cases` that it has, by what they promise."""

    actor: Any
    token: str = ""
    cases: dict[Any, Case] = field(default_factory=dict)


class _Pool:
    """The actors of a run. `opening` and `_Member.cases` hold what Ray promises (ObjectRef)."""

    def __init__(self, ray: ModuleType, kind: _Kind, config: CohortConfig) -> None:
        self.ray, self.kind, self.config, self.places = ray, kind, config, Places(config.output)
        self.record = _absolute(config).to_json()
        self.opening: dict[Any, _Member] = {}
        self.open: list[_Member] = []
        self.todo: deque[Case] = deque()
        self.losses: Counter[str] = Counter()
        self.failed_openings = 0
        self.worked = time.monotonic()

    def run(self, cases: Sequence[Case], cancelled: ShouldCancel) -> Iterator[CaseRecord]:
        """All cases; see `RayExecutor`."""
        self.todo.extend(cases)
        for _ in range(min(self.kind.count, len(cases))):
            self._start()
        while self.todo or any(member.cases for member in self.open):
            if cancelled():
                raise Cancelled()
            self._hand_out()
            self._check_patience()
            promised = [*self.opening, *(ref for member in self.open for ref in member.cases)]
            for ref in self.ray.wait(promised, timeout=POLL_SECONDS)[0]:
                yield from self._opened(ref) if ref in self.opening else self._done(ref)

    def close(self) -> None:
        """End all actors: cases in work are given up, and their locks with them."""
        busy = [ref for member in self.open for ref in member.cases]
        for member in self.open if busy else []:
            member.actor.stop.remote()
        if busy:
            self.ray.wait(busy, num_returns=len(busy), timeout=STOP_SECONDS)
        for member in [*self.open, *self.opening.values()]:
            self._end(member)

    def _start(self) -> None:
        """One more actor; it opens when the cluster has room for it."""
        member = _Member(self.kind.remote.remote(self.kind.opener))
        self.opening[member.actor.open.remote(self.record)] = member

    def _hand_out(self) -> None:
        """The next cases to whoever has too few, evenly."""
        for wanted in range(AHEAD):
            for member in self.open:
                if len(member.cases) == wanted and self.todo and self._may_have(member, self.todo[0]):
                    case = self.todo.popleft()
                    member.cases[member.actor.do.remote(case)] = case

    def _may_have(self, member: _Member, case: Case) -> bool:
        """A case at which a worker was lost has a worker for itself: if it kills that one too, no other case is to blame."""
        return not member.cases or not any(self.losses[known.name] for known in (case, *member.cases.values()))

    def _check_patience(self) -> None:
        if self.open:
            self.worked = time.monotonic()
        elif time.monotonic() - self.worked > PATIENCE_SECONDS:
            raise FewShotSegError(
                f"The cluster gave no worker for {PATIENCE_SECONDS / 60:.0f} minutes",
                "room for one",
                "see `ray status`; run again",
            )

    def _opened(self, ref: Any) -> Iterator[CaseRecord]:
        member = self.opening.pop(ref)
        try:
            member.token = self._got(ref)
        except self.ray.exceptions.RayError as error:
            self.failed_openings += 1
            if self.failed_openings >= MOST_LOSSES:
                raise FewShotSegError(
                    f"The cluster lost {MOST_LOSSES} workers while they loaded the model: {error}",
                    "",
                    "look at its memory and log",
                ) from error
            self._start()
        else:
            self.failed_openings = 0
            self.open.append(member)
        yield from ()

    def _done(self, ref: Any) -> Iterator[CaseRecord]:
        member = next((member for member in self.open if ref in member.cases), None)
        if member is None:  # lost a moment ago, with another of its cases
            return
        try:
            record = self._got(ref)
        except self.ray.exceptions.RayError:
            yield from self._lost(member)
        else:
            del member.cases[ref]
            yield record

    def _got(self, ref: Any) -> Any:
        """What was promised; raises what is an error of ours, and what Ray says of a loss. Anything else ends the run, too."""
        try:
            value = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            raise FewShotSegError(f"A worker of the cluster failed: {error}", "", "please report this") from error
        if isinstance(value, FewShotSegError):
            raise value
        return value

    def _lost(self, member: _Member) -> Iterator[CaseRecord]:
        """A machine or process is gone: its cases go back to the front, another worker takes its place."""
        self.open.remove(member)
        self._end(member)
        self._start()
        for case in reversed(member.cases.values()):
            self.losses[case.name] += 1
            if self.losses[case.name] < MOST_LOSSES:
                self.todo.appendleft(case)
            else:
                yield self._given_up(case)

    def _end(self, member: _Member) -> None:
        """End an actor, which may only be out of reach: without its locks it writes nothing any more."""
        self.ray.kill(member.actor)
        for case in member.cases.values():
            if break_lock_of(self.places.locks, case.name, member.token):
                sweep(self.places, case.name)

    def _given_up(self, case: Case) -> CaseRecord:
        """The record of a case at which worker after worker was lost."""
        told = {
            "found": f"{MOST_LOSSES} workers of the cluster were lost while they were at it",
            "expected": "",
            "action": "look at the memory of its machines; segment this scan alone",
        }
        record = CaseRecord(case.name, str(case.image.absolute()), "failed", error=told)
        with Locks(self.places.locks) as locks:
            if locks.take(case.name) is not None:
                return replace(record, status="busy")
            record.write(self.places.record(case.name))
        return record


def _absolute(config: CohortConfig) -> CohortConfig:
    """With a checkpoint that is a file named as every machine finds it."""
    path = Path(config.segmenter.checkpoint)
    return replace(config, segmenter=replace(config.segmenter, checkpoint=str(path.absolute()))) if path.exists() else config


@contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to a cluster; the connection ends with the block, unless there was one before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a hospital's machines leaves them
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise ConfigError("A cluster needs the package ray", "", "pip install 'fewshotseg[cluster]'") from error
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address, include_dashboard=False if address == LOCAL else None, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"The cluster {address!r} does not answer: {error}", "a running Ray cluster", "`ray start --head`, or --ray local"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
