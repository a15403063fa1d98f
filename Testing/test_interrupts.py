from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from FewShotSegLib.interrupts import Interrupted, cancel_on_interrupt, raise_on_interrupt

SLEEPER = """
import sys, time
from FewShotSegLib.interrupts import cancel_on_interrupt
with cancel_on_interrupt(lambda: print("asked", flush=True)):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_ctrl_c_raises_through_every_except_exception() -> None:
    with pytest.raises(Interrupted), raise_on_interrupt():
        try:
            signal.raise_signal(signal.SIGINT)
        except Exception:
            pytest.fail("swallowed")


def test_the_handler_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with raise_on_interrupt(), cancel_on_interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_the_first_ctrl_c_asks_and_warns_once() -> None:
    warned: list[bool] = []
    with cancel_on_interrupt(lambda: warned.append(True)) as cancelled:
        assert not cancelled()
        signal.raise_signal(signal.SIGINT)
        assert cancelled()
    assert warned == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to other processes")
def test_the_second_ctrl_c_kills() -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT


def test_other_threads_leave_ctrl_c_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with cancel_on_interrupt() as cancelled:
            seen.extend([signal.getsignal(signal.SIGINT), cancelled()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]
