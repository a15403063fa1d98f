"""Where and how the encoder runs: device, precision, and what happens when the memory of the GPU runs out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.encoders import Encoder, folded
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.resnext3d import TILE, tiled

log = logging.getLogger(__name__)
PROBE_SIDE = 128  # pixels


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU. Raises ConfigError for a device that is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if present[device]))
    if not present.get(name.split(":")[0], False):
        usable = ", ".join(["auto", *(device for device, there in present.items() if there)])
        raise ConfigError(f"The device {name!r} is not available here", f"one of {usable}", "choose one of these")
    return torch.device(name)


class FeatureRunner:
    """Runs an encoder over slices: unit features on the CPU, batch size and device adapted to the memory there is."""

    def __init__(self, encoder: Encoder, device: torch.device, batch: int = 4) -> None:
        self.encoder = (folded(encoder) if isinstance(encoder, Encoder) else encoder).eval().to(device)
        self.volumetric = getattr(encoder, "volumetric", False)
        self.device, self.batch = device, TILE if self.volumetric else batch
        self.notes: list[str] = []
        self._bf16: bool | None = None

    def __call__(self, slices: Tensor) -> Iterator[Tensor]:
        """Slices (n, h, w) -> unit features (b, c, h/8, w/8) batch after batch, on the CPU, float32."""
        if self.volumetric:
            yield from self._volume(slices)
            return
        start = 0
        while start < len(slices):
            try:
                features = self._encode(slices[start : start + self.batch])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._make_room()
                continue
            start += len(features)
            yield features

    def _volume(self, slices: Tensor) -> Iterator[Tensor]:
        """All slices as one volume, in overlapping tiles; the memory decides at the first of them."""
        given = 0
        while given < len(slices):
            try:
                for features in tiled(self._encode, slices, self.batch, self.batch // 4):
                    given += len(features)
                    yield F.normalize(features, dim=1, eps=1e-4)
            except RuntimeError as error:
                if given or not out_of_memory(error):
                    raise
                self._make_room()

    @torch.no_grad()
    def _encode(self, slices: Tensor) -> Tensor:
        if self._bf16 is None:
            self._bf16 = self._bf16_is_faster()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            features = self.encoder(slices.to(self.device))
        return F.normalize(features.float(), dim=1, eps=1e-4).cpu()

    def _make_room(self) -> None:
        """After an out-of-memory error: halve the batch; with single slices, go on on the CPU."""
        if self.batch > 1:
            self.batch //= 2
            note = f"The memory of {self.device} ran out; going on with {self.batch} slices at once."
        elif self.device.type != "cpu":
            self.device, self._bf16 = torch.device("cpu"), None
            self.encoder.to(self.device)
            note = "The memory of the GPU ran out even for one slice; going on on the CPU, which is slower."
        else:
            raise MemoryError("One slice does not fit into the memory of this machine.")
        log.warning(note)
        self.notes.append(note)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _bf16_is_faster(self) -> bool:
        """As the processor says; where it does not, one small slice each way, after a warm-up."""
        if (said := multiplies_bf16(self.device)) is not None:
            return said
        probe = torch.zeros(1, PROBE_SIDE, PROBE_SIDE, device=self.device)

        def seconds(bf16: bool) -> float:
            def run() -> None:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                    self.encoder(probe).sum().item()

            return timed(run)

        try:
            return seconds(True) < seconds(False)
        except RuntimeError:  # this device has no bfloat16
            return False


def out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out: CUDA has an exception for it, MPS, cuBLAS and the CPU only say it."""
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")
    )


def multiplies_bf16(device: torch.device) -> bool | None:
    """Whether an x86 processor has instructions for products of bfloat16, without which they are slow; None: has to be tried.

    Better than a stopwatch, which may decide otherwise in the next run, on a busy machine, and change the last digits.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in older torch
    found = capabilities() if capabilities and device.type == "cpu" else {}
    if found.get("architecture") != "x86_64":
        return None
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def timed(run: Callable[[], None], repeats: int = 2) -> float:
    """Shortest of `repeats` timed runs after one that is not timed, seconds."""
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
