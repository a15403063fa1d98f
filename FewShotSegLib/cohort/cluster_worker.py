"""What runs on the machines of a cluster: one worker with its model, in a process of its own. Nothing here imports Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from FewShotSegLib.cohort.case import Loaded, Worker, finish_case, open_worker, read_case
from FewShotSegLib.cohort.config import FILE, CohortConfig
from FewShotSegLib.cohort.manifest import Case
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.errors import ConfigError, FewShotSegError

AHEAD = 2  # cases at once: one in work, one that is read meanwhile
Opener = Callable[..., Worker]
"""As `case.open_worker`."""


class ClusterWorker:
    """The actor: `open` it once, then `do` cases, from `AHEAD` threads at most. Errors are returned, not raised: they travel."""

    def __init__(self, opener: Opener = open_worker) -> None:
        self._opener = opener
        self._stopped = threading.Event()
        self._segmenting = threading.Lock()
        self._worker: Worker | None = None

    def open(self, config: Mapping[str, Any]) -> str | FewShotSegError:
        """Load the model and the supports. Returns what tells this worker's locks from others', or why it cannot work."""
        try:
            self._worker = self._opener(_shared(CohortConfig.from_json(config)), cancelled=self._stopped.is_set)
        except FewShotSegError as error:
            return error
        return self._worker.locks.me.token

    def do(self, case: Case) -> CaseRecord | FewShotSegError:
        """As `case.run_case`: read at once, then wait for the case before to be segmented."""
        assert self._worker is not None, "open first"
        try:
            loaded = read_case(case, self._worker)
            if not isinstance(loaded, Loaded):
                return loaded
            with self._segmenting:
                return finish_case(loaded, self._worker)
        except FewShotSegError as error:
            return error

    def stop(self) -> None:
        """Let cases in work end at their next step; nothing of them is written, their locks are given back."""
        self._stopped.set()


def _shared(config: CohortConfig) -> CohortConfig:
    """The configuration, if the cohort's folder is what the other machines see."""
    if not (config.output / FILE).is_file():
        raise ConfigError(
            f"{config.output} on a machine of the cluster is not the cohort's folder",
            "scans, supports and output in folders that all machines share, under the same path",
            "choose shared folders",
        )
    return config
