"""A cohort on a Ray cluster of two nodes on this machine, one of which is lost in mid-run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cohort_folder import make_cohort, open_bright, open_deadly

from FewShotSegLib.cohort.case import Worker
from FewShotSegLib.cohort.cluster import RayExecutor, _Member, _Pool
from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.manifest import Case
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.run import Tally, run
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import Cancelled, ConfigError, SupportError

pytest.importorskip("ray", reason="needs the extra [cluster]")
pytestmark = pytest.mark.slow  # a cluster takes half a minute to start
SCANS, STARTS = 40, 4
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster on loopback: a head with one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_health_check_period_ms", "1000")  # a lost node is seen sooner
        patch.setenv("RAY_health_check_failure_threshold", "10")
        nodes = started()
        yield nodes
        nodes.shutdown()


def started() -> Any:
    """A cluster with its head; on a busy machine its parts may find each other too late, and it is started again."""
    from ray.cluster_utils import Cluster

    for attempt in range(STARTS):
        nodes = Cluster()
        try:
            nodes.add_node(**NODE)
            return nodes
        except Exception:  # Ray raises no type of its own here
            nodes.shutdown()
            if attempt == STARTS - 1:
                raise


def refused(config: CohortConfig, cancelled: object = None) -> Worker:
    """A worker that cannot be opened."""
    raise SupportError("an empty drawing", "one with an organ", "draw it")


def records(config: CohortConfig) -> dict[str, CaseRecord]:
    """All records by name; each is whole and fits its result."""
    places, found = Places(config.output), {}
    for path in sorted(places.results.glob("[!.]*.json")):
        record = CaseRecord.read(path)
        assert record is not None
        if record.status == "done":
            assert sha256_of(places.result(record.name)) == record.result
        found[record.name] = record
    return found


def assert_tidy(config: CohortConfig) -> None:
    """No lock and no temporary file is left, and no case was done twice (that would be in the history)."""
    assert list(Places(config.output).locks.iterdir()) == []
    assert list(Places(config.output).results.glob(".*")) == []
    assert not (config.output / "history").exists()


@pytest.mark.timeout(600)
def test_a_node_that_is_lost_in_mid_run_loses_nothing(tmp_path: Path, cluster: Any) -> None:
    config = make_cohort(tmp_path, SCANS, pictures=False)
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    heard: list[CaseRecord] = []
    at_work: list[str] = []

    def hear(record: CaseRecord, tally: Tally) -> None:
        heard.append(record)
        both = len({r.made_with["process"] for r in heard}) == 2
        if both and not at_work:
            at_work.extend(path.stem for path in Places(config.output).locks.glob("[!.]*.lock"))
            assert len(heard) < SCANS - 4
            cluster.remove_node(second, allow_graceful=False)

    tally = run(config, hear, executor=RayExecutor(cluster.address, opener=open_bright))
    assert at_work
    assert sorted(record.name for record in heard) == [f"s{n:03d}" for n in range(SCANS)]
    assert tally.done + tally.kept == SCANS and tally.failed == tally.busy == 0
    found = records(config)
    assert len(found) == SCANS and {record.status for record in found.values()} == {"done"}
    first, other = (sum(r.made_with["process"] == process for r in found.values()) for process in _processes(found))
    assert first + other == SCANS and min(first, other) >= 1
    assert_tidy(config)


def _processes(found: dict[str, CaseRecord]) -> list[int]:
    processes = sorted({record.made_with["process"] for record in found.values()})
    assert len(processes) == 2
    return processes


@pytest.mark.timeout(600)
def test_a_case_that_kills_its_workers_fails_and_the_others_are_done(tmp_path: Path, cluster: Any) -> None:
    config = make_cohort(tmp_path, 5, pictures=False)
    tally = run(config, executor=RayExecutor(cluster.address, opener=open_deadly))
    assert tally.failed == 1 and tally.done + tally.kept == 4  # kept: written, but not told any more
    failed = records(config)["s002"]
    assert failed.status == "failed" and "workers of the cluster were lost" in failed.error["found"]
    assert_tidy(config)
    assert run(config, executor=RayExecutor(cluster.address, opener=open_bright)) == Tally(done=1, kept=4)


def test_who_was_lost_with_a_worker_has_the_next_one_alone(tmp_path: Path) -> None:
    pool = _Pool(None, None, make_cohort(tmp_path, 1))  # type: ignore[arg-type]  # no cluster is asked
    deadly, innocent, other = (Case(name, tmp_path / name) for name in ("deadly", "innocent", "other"))
    pool.losses.update(("deadly", "innocent"))
    idle, at_other, at_deadly = (_Member(None, cases=cases) for cases in ({}, {1: other}, {1: deadly}))
    assert pool._may_have(idle, deadly) and pool._may_have(idle, other) and pool._may_have(at_other, replace(other, name="x"))
    assert not any(pool._may_have(*pair) for pair in ((at_other, deadly), (at_deadly, other), (at_deadly, innocent)))


def test_cancelled_in_mid_run_gives_all_locks_back(tmp_path: Path, cluster: Any) -> None:
    config, heard = make_cohort(tmp_path, 12, pictures=False), list[str]()
    with pytest.raises(Cancelled):
        run(
            config,
            lambda record, tally: heard.append(record.name),
            lambda: len(heard) >= 2,
            RayExecutor(cluster.address, opener=open_bright),
        )
    assert 2 <= len(records(config)) < 12
    assert_tidy(config)


def test_what_cannot_work_is_told_at_once(tmp_path: Path, cluster: Any) -> None:
    config = make_cohort(tmp_path, 2)
    with pytest.raises(SupportError, match="an empty drawing"):
        run(config, executor=RayExecutor(cluster.address, opener=refused))
    with pytest.raises(ConfigError, match="shares them out"):
        run(replace(config, devices=("cpu", "cuda")), executor=RayExecutor(cluster.address))
    with pytest.raises(ConfigError, match="Workers of 500 cores"):
        run(config, executor=RayExecutor(cluster.address, cpus=500))
