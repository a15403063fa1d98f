"""2D superpixels: the published ones, and what they must be on any scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.body import body_mask  # noqa: E402
from fewshotseg_training.superpixels import superpixels  # noqa: E402


@pytest.mark.parity
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_golden_superpixels(golden_dir: Path, modality: str) -> None:
    with np.load(golden_dir / "alpnet_visa" / "d_superpixels.npz") as golden:
        image, threshold = golden[f"{modality}_img"], float(golden[f"{modality}_fg_thresh"])
        assert np.array_equal(body_mask(image, threshold), golden[f"{modality}_fgmask"] > 0)
        published = superpixels(image, threshold=threshold, reference_numbering=True)
        assert np.array_equal(published, golden[f"{modality}_superpix"])
        ours = superpixels(image, threshold=threshold)
        for mine, raw, body in zip(ours, golden[f"{modality}_raw"], golden[f"{modality}_fgmask"] > 0, strict=True):
            assert np.array_equal(mine > 0, body)  # the first superpixel is not lost
            assert len({(a, b) for a, b in zip(mine[body], raw[body], strict=True)}) == mine.max() == len(np.unique(raw[body]))


def test_an_empty_slice_has_none_and_the_type_does_not_matter() -> None:
    image = np.zeros((2, 32, 32), np.int16)
    image[1, 4:28, 4:16], image[1, 4:28, 16:28] = 100, 200
    found = superpixels(image, min_size=50)
    assert not found[0].any() and found[1].max() >= 2
    assert np.array_equal(found, superpixels(image.astype(np.float64), min_size=50))
