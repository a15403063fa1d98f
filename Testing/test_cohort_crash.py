"""What no program survives, and what a cohort's folder survives: kill -9, a full disk, two runs at once; and very long lists."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from cohort_folder import make_cohort, run_in_process, use_bright_engine

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.locks import running
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.run import Tally, run
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import OutputError
from FewShotSegLib.segfiles import read_labels

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")
KILLS, SCANS = 10, 80
MIB = 1 << 20


@pytest.fixture(scope="module")
def processes() -> Iterator[BaseContext]:
    """Processes that begin with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cohort_folder"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the server does not know pytest's path
        yield context


def finished(config: CohortConfig) -> dict[str, CaseRecord]:
    """All records by name; each is whole and fits its result."""
    places, found = Places(config.output), {}
    for path in sorted(places.results.glob("[!.]*.json")):
        record = CaseRecord.read(path)
        assert record is not None and record.status == "done"
        assert sha256_of(places.result(record.name)) == record.result
        found[record.name] = record
    for path in places.results.glob("[!.]*.seg.nrrd"):  # also those whose record was not written any more
        assert len(read_labels(path).segments) == 2
    return found


def is_at_work(process: int, config: CohortConfig) -> bool:
    """Whether a process holds the lock of a case."""
    return any(holder.process == process for holder in running(Places(config.output).locks).values())


def written(config: CohortConfig) -> int:
    """How many records there are."""
    return len(list(Places(config.output).results.glob("[!.]*.json")))


def test_kill_9_at_ten_random_moments_loses_nothing(tmp_path: Path, processes: BaseContext) -> None:
    config, chance = make_cohort(tmp_path, SCANS), random.Random(7)
    times: dict[str, str] = {}
    for _ in range(KILLS):
        process = processes.Process(target=run_in_process, args=(config.to_json(), 0.03))  # type: ignore[attr-defined]
        process.start()
        wanted, deadline = len(times) + chance.randint(0, 4), time.monotonic() + 60
        while not (is_at_work(process.pid, config) and written(config) >= wanted) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it was at work
        now = {name: record.finished + record.host + str(record.seconds) for name, record in finished(config).items()}
        assert times.items() <= now.items()  # what was done is done, and was not done again
        times = now
    assert 0 < len(times) < SCANS
    process = processes.Process(target=run_in_process, args=(config.to_json(), 0.0))  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == 0 and len(finished(config)) == SCANS
    assert {name: r.finished + r.host + str(r.seconds) for name, r in finished(config).items()}.items() >= times.items()
    assert list(Places(config.output).locks.glob("[!.]*")) == []  # a kill while a lock is made may leave a hidden file
    assert [path.name for path in Places(config.output).results.glob(".*")] == []


def test_two_runs_on_one_folder_do_nothing_twice(tmp_path: Path, processes: BaseContext) -> None:
    config = make_cohort(tmp_path, 30)
    both = [processes.Process(target=run_in_process, args=(config.to_json(), 0.02)) for _ in range(2)]  # type: ignore[attr-defined]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(finished(config)) == 30 and not (config.output / "history").exists()  # twice done would be in the history


FULL_DISK = """
import resource, sys
from pathlib import Path
from cohort_folder import CohortConfig, run_in_process
from FewShotSegLib.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
try:
    run_in_process(CohortConfig.read(Path(sys.argv[1])).to_json(), 0.0)
except OutputError as error:
    print(error)
"""


def test_a_full_disk_ends_with_a_clear_message_and_is_gone_on_from(tmp_path: Path) -> None:
    config = make_cohort(tmp_path, 5)
    config.write()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FULL_DISK, str(config.output)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "Cannot write" in told and "free some space" in told
    assert not list(Places(config.output).results.glob("*.json")) and not list(Places(config.output).results.glob(".*"))
    assert not list(Places(config.output).locks.glob("*"))


def test_a_small_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        use_bright_engine(monkeypatch)
        config = replace(make_cohort(tmp_path, 40), output=disk / "out")
        with pytest.raises(OutputError, match="No space left"):
            run(config)
        done = finished(config)
        assert 0 < len(done) < 40
        (disk / "out").rename(disk / "moved")
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        (disk / "moved").rename(disk / "out")
        tally = run(config)
        assert tally.kept == len(done) and tally.done == 40 - len(done) and tally.failed == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def dry_run(folder: Path, scans: int) -> tuple[float, int, int]:
    """Seconds per case of a dry run, and the most memory (bytes) used in its first and second half."""
    config = replace(make_cohort(folder, 0), dry_run=True, source=folder / "list.csv")
    config.output.mkdir()
    from cohort_folder import make_scan

    make_scan(0)[0].write(folder / "scan.nii")
    rows = [f"scan.nii,c{number:05d}" for number in range(scans)]
    (folder / "list.csv").write_text("image,name\n" + "\n".join(rows))
    memory: list[int] = []
    start = time.process_time()
    assert run(config, lambda record, tally: memory.append(_resident())) == Tally(done=scans)
    used = time.process_time() - start
    half = len(memory) // 2
    return used / scans, max(memory[:half]), max(memory[half:])


def _resident() -> int:
    """Memory in use now, bytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def test_five_hundred_cases_need_little_time_and_no_more_memory(tmp_path: Path) -> None:
    seconds, before, after = dry_run(tmp_path, 500)
    assert seconds < 0.04 and after - before < 8 * MIB  # on a busy machine; the ten thousand must keep to 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_cases_need_little_time_and_no_more_memory(tmp_path: Path) -> None:
    seconds, before, after = dry_run(tmp_path, 10_000)
    print(f"{1000 * seconds:.1f} ms per case; most memory in the halves: {before / MIB:.1f}, {after / MIB:.1f} MiB")
    assert seconds < 0.02 and after - before < 24 * MIB
