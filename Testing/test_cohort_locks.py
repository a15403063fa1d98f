from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from FewShotSegLib.cohort import locks as module
from FewShotSegLib.cohort.locks import STALE_SECONDS, Locks, break_lock_of, read_holder, running


def put(folder: Path, name: str, **changes: object) -> Path:
    """A lock as another holder would write it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.lock"
    path.write_text(json.dumps(asdict(replace(Locks(folder).me, token="other", **changes))))  # type: ignore[arg-type]
    return path


def test_one_of_two_gets_it(tmp_path: Path) -> None:
    with Locks(tmp_path) as one, Locks(tmp_path, "set") as two:
        assert one.take("a") is None and one.is_mine("a")
        holder = two.take("a")
        assert holder == one.me and str(os.getpid()) in holder.described
        assert not two.is_mine("a")
        two.release("a")
        assert one.is_mine("a")
        one.release("a")
        assert two.take("a") is None
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_exactly_one_gets_it(tmp_path: Path) -> None:
    put(tmp_path, "a", process=2**22 + 5, began="1")
    rooms = [Locks(tmp_path) for _ in range(16)]
    got: list[bool] = []
    start = threading.Barrier(len(rooms))

    def race(room: Locks) -> None:
        start.wait()
        got.append(room.take("a") is None)

    threads = [threading.Thread(target=race, args=(room,)) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 1
    for room in rooms:
        room.close()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from FewShotSegLib.cohort.locks import Locks; import os\n"
    code += "Locks(Path(sys.argv[1])).take('a'); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "a.lock").exists() and running(tmp_path) == {}
    with Locks(tmp_path) as mine:
        assert mine.take("a") is None and mine.inherited == {"a"}


def test_a_number_that_another_process_has_now_is_a_dead_one(tmp_path: Path) -> None:
    put(tmp_path, "a", began="long ago")
    with Locks(tmp_path) as mine:
        assert mine.take("a") is None


def test_another_machine_is_believed_while_it_beats(tmp_path: Path) -> None:
    path = put(tmp_path, "a", machine="elsewhere/1")
    with Locks(tmp_path) as mine:
        assert mine.take("a") is not None and set(running(tmp_path)) == {"a"}
        old = time.time() - STALE_SECONDS - 5
        os.utime(path, (old, old))
        assert running(tmp_path) == {} and mine.take("a") is None


def test_a_damaged_lock_is_believed_until_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text("{")
    with Locks(tmp_path) as mine:
        assert mine.take("a") is not None
        os.utime(path, (0, 0))
        assert mine.take("a") is None


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    with Locks(tmp_path) as mine:
        mine.take("a")
        os.utime(tmp_path / "a.lock", (0, 0))
        deadline = time.monotonic() + 60
        while (tmp_path / "a.lock").stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / "a.lock").stat().st_mtime > 1


def test_a_live_lock_that_was_moved_by_mistake_is_put_back(tmp_path: Path) -> None:
    with Locks(tmp_path) as live, Locks(tmp_path) as other:
        live.take("a")
        other._clear(tmp_path / "a.lock", replace(live.me, token="the stale one"))
        assert live.is_mine("a")


def test_a_cluster_may_break_the_lock_of_a_lost_machine_and_no_other(tmp_path: Path) -> None:
    put(tmp_path, "a", machine="lost/1")
    holder = read_holder(tmp_path / "a.lock")
    assert holder is not None
    assert not break_lock_of(tmp_path, "a", "another") and read_holder(tmp_path / "a.lock") == holder
    assert break_lock_of(tmp_path, "a", holder.token) and read_holder(tmp_path / "a.lock") is None
    assert not break_lock_of(tmp_path, "a", holder.token)
