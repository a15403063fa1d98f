"""Which device is taken, and what happens when its memory runs out. The GPU is played by an encoder and the device "meta"."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys

import pytest
import torch
from tiny_encoder import TinyEncoder
from torch import Tensor

from FewShotSegLib import devices, windows
from FewShotSegLib.devices import FeatureRunner, choose_device, out_of_memory, timed
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.windows import fast_type

CPU, FAKE_GPU = torch.device("cpu"), torch.device("meta")
SLICES = torch.randn(11, 16, 24, generator=torch.Generator().manual_seed(0))
PROBE = FeatureRunner._bf16_is_faster  # conftest takes it from all tests


class SmallMemory(TinyEncoder):
    """Has room for `room` slices at once, on the fake GPU for none; remembers where it was sent."""

    def __init__(self, room: int, error: RuntimeError | None = None) -> None:
        super().__init__()
        self.room, self.error = room, error or torch.cuda.OutOfMemoryError("CUDA out of memory.")
        self.at = CPU

    def to(self, device: torch.device) -> SmallMemory:  # type: ignore[override]
        self.at = device
        return self

    def forward(self, slices: Tensor) -> Tensor:
        if len(slices) > self.room or self.at != CPU:
            raise self.error
        return super().forward(slices)


@pytest.fixture()
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(devices.torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    return FAKE_GPU


def features(runner: FeatureRunner, slices: Tensor = SLICES) -> Tensor:
    return torch.cat(list(runner(slices)))


def test_features_are_unit_vectors_in_order_whatever_the_batch() -> None:
    whole = features(FeatureRunner(TinyEncoder(), CPU, batch=11))
    assert whole.shape == (11, 32, 2, 3) and whole.dtype == torch.float32
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(11, 2, 3))
    for batch in (1, 4, 50):
        torch.testing.assert_close(features(FeatureRunner(TinyEncoder(), CPU, batch=batch)), whole)


def test_batches_come_one_after_another() -> None:
    encoder = TinyEncoder()
    batches = FeatureRunner(encoder, CPU, batch=4)(SLICES)
    next(batches)
    assert encoder.batches == [4]
    assert [len(b) for b in batches] == [4, 3]


def test_no_gradients_and_no_training_mode() -> None:
    encoder = TinyEncoder().train()
    encoder.mixing.requires_grad_()
    assert not features(FeatureRunner(encoder, CPU)).requires_grad
    assert not encoder.training


def test_the_batch_is_halved_until_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    encoder = SmallMemory(room=2)
    runner = FeatureRunner(encoder, CPU, batch=8)
    with caplog.at_level(logging.WARNING):
        found = features(runner)
    torch.testing.assert_close(found, features(FeatureRunner(TinyEncoder(), CPU)))
    assert encoder.batches == [2, 2, 2, 2, 2, 1]
    assert runner.batch == 2
    assert [("with 4 slices" in n, "with 2 slices" in n) for n in runner.notes] == [(True, False), (False, True)]
    assert caplog.messages == runner.notes


def test_the_smaller_batch_is_kept_for_the_next_scan() -> None:
    runner = FeatureRunner(SmallMemory(room=2), CPU, batch=4)
    features(runner)
    features(runner)
    assert len(runner.notes) == 1


def test_a_gpu_without_room_for_one_slice_gives_way_to_the_cpu(fake_gpu: torch.device) -> None:
    encoder = SmallMemory(room=4)
    runner = FeatureRunner(encoder, fake_gpu, batch=4)
    assert encoder.at == fake_gpu
    found = features(runner)
    assert encoder.at == runner.device == CPU
    torch.testing.assert_close(found, features(FeatureRunner(TinyEncoder(), CPU)))
    assert "going on with 2" in runner.notes[0] and "going on with 1" in runner.notes[1]
    assert "going on on the CPU" in runner.notes[2] and len(runner.notes) == 3


def test_the_fallback_goes_on_where_the_gpu_stopped(fake_gpu: torch.device) -> None:
    encoder = SmallMemory(room=4)
    runner = FeatureRunner(encoder, CPU, batch=4)
    batches = runner(SLICES)
    first = next(batches)
    encoder.at = runner.device = fake_gpu
    assert torch.cat([first, *batches]).shape[0] == len(SLICES)
    assert encoder.batches == [4, *[1] * 7]


def test_a_cpu_without_room_for_one_slice_says_so() -> None:
    with pytest.raises(MemoryError, match="One slice does not fit"):
        features(FeatureRunner(SmallMemory(room=0), CPU, batch=2))


@pytest.mark.parametrize(
    "said",
    [
        "MPS backend out of memory (MPS allocated: 5.50 GB, max allowed: 20.40 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        "[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes",
    ],
)
def test_other_words_for_a_full_memory(said: str) -> None:
    runner = FeatureRunner(SmallMemory(room=1, error=RuntimeError(said)), CPU, batch=2)
    assert len(features(runner)) == len(SLICES)
    assert runner.batch == 1


def test_other_errors_are_not_taken_for_a_full_memory() -> None:
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    runner = FeatureRunner(SmallMemory(room=0, error=RuntimeError("a bug")), CPU, batch=4)
    with pytest.raises(RuntimeError, match="a bug"):
        features(runner)
    assert runner.notes == []


# ---------------------------------------------------------------------------------------------- precision
class SlowUnder(TinyEncoder):
    """Counts its runs with and without autocast; the clock below makes one of them slow."""

    def __init__(self, slow_bf16: bool) -> None:
        super().__init__()
        self.slow_bf16, self.seconds = slow_bf16, 0.0
        self.in_bf16: list[bool] = []

    def forward(self, slices: Tensor) -> Tensor:
        bf16 = torch.is_autocast_enabled("cpu")
        self.in_bf16.append(bf16)
        self.seconds += 2.0 if bf16 == self.slow_bf16 else 1.0
        return super().forward(slices)


@pytest.mark.parametrize("slow_bf16", [True, False])
def test_bfloat16_is_used_where_the_probe_shows_that_it_is_faster(monkeypatch: pytest.MonkeyPatch, slow_bf16: bool) -> None:
    monkeypatch.setattr(FeatureRunner, "_bf16_is_faster", PROBE)
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device: None)
    encoder = SlowUnder(slow_bf16)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: encoder.seconds)
    runner = FeatureRunner(encoder, CPU, batch=8)
    assert features(runner).dtype == torch.float32
    probes = len(encoder.in_bf16)
    assert encoder.in_bf16[-2:] == [not slow_bf16] * 2
    assert {True, False} == set(encoder.in_bf16)
    features(runner)
    assert len(encoder.in_bf16) == probes + 2  # the probe ran once


def test_a_device_without_bfloat16_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureRunner, "_bf16_is_faster", PROBE)
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device: None)

    class NoBf16(TinyEncoder):
        def forward(self, slices: Tensor) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                raise NotImplementedError("no bfloat16 here")
            return super().forward(slices)

    assert len(features(FeatureRunner(NoBf16(), CPU))) == len(SLICES)


def test_timing_takes_the_shortest_of_the_repeats_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, costs = [0.0], iter([50.0, 7.0, 3.0, 5.0])

    def run() -> None:
        clock[0] += next(costs)

    monkeypatch.setattr(devices.time, "perf_counter", lambda: clock[0])
    assert timed(run, repeats=3) == 3.0


# ---------------------------------------------------------------------------------------------- choice
@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_that_is_there(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == torch.device(chosen)
    assert choose_device("cpu") == CPU


def test_a_device_can_be_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "tpu"])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"'{name}'.*one of auto, cpu"):
        choose_device(name)


@pytest.mark.parametrize("own", [None, "17"])
def test_threads_do_not_spin_long_unless_the_user_says_so(own: str | None) -> None:
    """Or another program on one of two cores makes a match fifty times slower."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    script = "import FewShotSegLib, os, sys; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    said = subprocess.run(
        [sys.executable, "-c", script],
        env=environment if own is None else {**environment, "GOMP_SPINCOUNT": own},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert said == (own or "15000")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_f": True}, False),
        ({"architecture": "aarch64"}, None),
    ],
)
def test_the_processor_says_whether_bfloat16_is_fast(monkeypatch: pytest.MonkeyPatch, found: dict, said: bool | None) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    cpu = torch.device("cpu")
    assert devices.multiplies_bf16(cpu) is said and devices.multiplies_bf16(torch.device("cuda")) is None
    if said is not None:  # then nothing is timed
        monkeypatch.setattr(FeatureRunner, "_bf16_is_faster", PROBE)
        monkeypatch.setattr(devices, "timed", lambda run: pytest.fail("timed"))
        monkeypatch.setattr(windows, "timed", lambda run: pytest.fail("timed"))
        assert FeatureRunner(TinyEncoder(), cpu)._bf16_is_faster() is said
        assert fast_type.__wrapped__(cpu) is (torch.bfloat16 if said else torch.float32)


def test_an_older_torch_cannot_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert devices.multiplies_bf16(torch.device("cpu")) is None
