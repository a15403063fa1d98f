"""How long the supervoxels of one scan take, and how much memory: `python -m fewshotseg_training.bench_supervoxels`.

A module without PyTorch, run in a process of its own, so that the memory is that of the supervoxels.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

from fewshotseg_training.supervoxels import felzenszwalb_3d, scale_to_255
from FewShotSegLib.memory import measured_apart, peak_memory_mb
from FewShotSegLib.phantom import make_patient

SHAPE = (36, 256, 256)
MIN_SIZE = 5000
PUBLISHED_SECONDS, PUBLISHED_MB = 11.6, 2200.0
"""The published program, 36 x 256 x 256, one thread, on the machine that the project was begun on."""


@dataclass(frozen=True)
class SupervoxelBenchmark:
    """Segmentation of a scan of `shape` (z, y, x) in one thread.

    Median of `seconds` by the clock and of the processor's, steadier on a busy machine; peak memory of the whole process.
    """

    shape: tuple[int, int, int]
    seconds: float
    processor_seconds: float
    peak_mb: float

    def told(self) -> str:
        """For people."""
        size = " x ".join(map(str, self.shape))
        return (
            f"Supervoxels of {size}: {self.seconds:.2f} s by the clock, {self.processor_seconds:.2f} s of one processor, "
            f"{self.peak_mb:.0f} MB for the whole process (published program, 36 x 256 x 256: "
            f"{PUBLISHED_SECONDS} s, {PUBLISHED_MB / 1000:.1f} GB)"
        )


def measure(shape: tuple[int, int, int] = SHAPE, repeats: int = 3) -> SupervoxelBenchmark:
    """Run the benchmark in a new process. Raises OutputError, with the process's last words, when it failed."""
    found = measured_apart("fewshotseg_training.bench_supervoxels", *map(str, (repeats, *shape)))
    return SupervoxelBenchmark(**{**found, "shape": tuple(found["shape"])})


def run(repeats: int, shape: tuple[int, int, int]) -> SupervoxelBenchmark:
    """Measure in this process, on an invented patient."""
    patient = make_patient(0, shape=shape)
    grey, spacing = scale_to_255(patient.volume.array), patient.volume.spacing
    wall, processor = [], []
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        felzenszwalb_3d(grey, (spacing[2], spacing[1], spacing[0]), min_size=MIN_SIZE)
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
    return SupervoxelBenchmark(shape, statistics.median(wall), statistics.median(processor), peak_memory_mb())


if __name__ == "__main__":
    count, slices, rows, columns = (int(word) for word in sys.argv[1:]) if len(sys.argv) > 1 else (3, *SHAPE)
    print(json.dumps(asdict(run(count, (slices, rows, columns)))))
