from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.phantom import ORGANS, Phantom, make_patient, save_case
from FewShotSegLib.phantom.fields import smooth_field
from FewShotSegLib.volume import Volume

SMALL = (36, 64, 64)
PLAUSIBLE_ML = {"liver": (1100, 2700), "right kidney": (80, 320), "left kidney": (80, 320), "spleen": (50, 400)}


def voxels(phantom: Phantom, name: str) -> np.ndarray:
    label = next(organ.label for organ in phantom.organs if organ.name == name)
    return phantom.labels == label


def centre_mm(phantom: Phantom, name: str) -> np.ndarray:
    """World position (x, y, z) of an organ's centre of mass."""
    index = np.array(ndimage.center_of_mass(voxels(phantom, name)))[::-1]
    return np.array(phantom.volume.geometry.origin) + index * phantom.volume.geometry.spacing


@pytest.fixture(scope="module")
def crowd() -> list[Phantom]:
    return [make_patient(seed, "MR", SMALL) for seed in range(12)]


def test_default_grid_is_the_one_of_an_abdominal_mr():
    phantom = make_patient(3)
    assert phantom.volume.array.shape == phantom.labels.shape == (36, 256, 256)
    assert phantom.volume.spacing == pytest.approx((1.25, 1.25, 7.7))
    assert phantom.volume.array.dtype == np.int16
    assert phantom.labels.dtype == np.uint8
    assert phantom.volume.array.min() >= 0
    assert not phantom.volume.is_ct


def test_every_organ_is_in_one_piece_and_of_a_plausible_size(crowd):
    for phantom in crowd:
        for organ in phantom.organs:
            mask = voxels(phantom, organ.name)
            low, high = PLAUSIBLE_ML[organ.name]
            assert low < mask.sum() * phantom.volume.geometry.voxel_ml < high
            pieces, _ = ndimage.label(mask)
            assert np.bincount(pieces.ravel())[1:].max() > 0.95 * mask.sum()


def test_organs_lie_where_anatomy_puts_them_in_lps(crowd):
    for phantom in crowd:
        liver, spleen = centre_mm(phantom, "liver"), centre_mm(phantom, "spleen")
        right, left = centre_mm(phantom, "right kidney"), centre_mm(phantom, "left kidney")
        assert liver[0] < -15 < 15 < spleen[0]
        assert right[0] < -25 < 25 < left[0]
        assert min(right[1], left[1], spleen[1]) > liver[1]
        assert min(liver[2], spleen[2]) > max(right[2], left[2])


def test_seeds_are_different_people(crowd):
    liver_ml = [voxels(p, "liver").sum() * p.volume.geometry.voxel_ml for p in crowd]
    assert np.std(liver_ml) > 80
    assert np.std([centre_mm(p, "spleen") for p in crowd], axis=0).min() > 3
    brightness = [np.median(p.volume.array[voxels(p, "spleen")]) for p in crowd]
    assert np.std(brightness) > 0.08 * np.mean(brightness)
    overlap = [dice(voxels(a, "right kidney"), voxels(b, "right kidney")) for a, b in zip(crowd, crowd[1:], strict=False)]
    assert np.mean(overlap) < 0.8


def test_one_seed_is_one_person_in_both_modalities_and_on_every_grid():
    mr, ct, fine = make_patient(5, "MR", SMALL), make_patient(5, "CT", SMALL), make_patient(5, "MR", (36, 128, 128))
    assert np.array_equal(mr.labels, ct.labels)
    assert ct.volume.is_ct
    for organ in ORGANS:
        assert np.abs(centre_mm(mr, organ.name) - centre_mm(fine, organ.name)).max() < 3


def test_ct_is_in_hounsfield_units():
    phantom = make_patient(1, "CT", SMALL)
    array, labels = phantom.volume.array, phantom.labels
    assert np.median(array[:, :3]) == pytest.approx(-1000, abs=15)
    assert 70 < np.median(array[labels == 1]) < 150
    assert np.median(array[labels == 2]) > np.median(array[labels == 1])


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_no_brightness_window_alone_finds_an_organ(modality):
    phantom = make_patient(2, modality, SMALL)
    best = {organ.name: best_window_dice(phantom, organ.name) for organ in phantom.organs}
    assert best.pop("liver") < 0.9
    assert max(best.values()) < 0.7


def test_mr_brightness_of_an_organ_drifts_through_the_image():
    phantom = make_patient(4, "MR", SMALL)
    inside = ndimage.binary_erosion(voxels(phantom, "liver"))
    smooth = ndimage.gaussian_filter(np.where(inside, phantom.volume.array, 0).astype(float), (1, 3, 3))
    local = smooth / np.maximum(ndimage.gaussian_filter(inside.astype(float), (1, 3, 3)), 1e-6)
    low, high = np.percentile(local[inside], (2, 98))
    assert high > 1.15 * low


def test_aorta_is_labelled_on_request_and_in_front_of_the_spine():
    phantom = make_patient(0, "CT", SMALL, extras=True)
    aorta = voxels(phantom, "aorta")
    assert aorta.any((1, 2)).all()
    assert 5 not in make_patient(0, "CT", SMALL).labels
    assert np.ptp(np.argwhere(aorta)[:, 2]) * phantom.volume.spacing[0] < 60


def test_equal_arguments_give_equal_voxels_whatever_the_number_of_threads():
    program = (
        "from FewShotSegLib.phantom import make_patient; import hashlib;"
        f"p = make_patient(7, 'MR', {SMALL}); print(hashlib.sha256(p.volume.array.tobytes() + p.labels.tobytes()).hexdigest())"
    )
    here = make_patient(7, "MR", SMALL)
    expected = hashlib.sha256(here.volume.array.tobytes() + here.labels.tobytes()).hexdigest()
    threads = "3" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected


@pytest.mark.parametrize(
    "shape, spacing", [((1, 64, 64), None), ((2, 8, 8), None), ((5, 40, 30), (0.5, 0.5, 0.5)), ((60, 1, 1), None)]
)
def test_odd_grids(shape, spacing):
    for modality in ("MR", "CT"):
        phantom = make_patient(0, modality, shape, spacing)
        assert phantom.volume.array.shape == phantom.labels.shape == shape


def test_smooth_field_has_unit_size_and_no_steps():
    axis = np.arange(-150, 150, 2.0)
    fields = np.stack([smooth_field(np.random.default_rng(s), (axis[:40], axis, axis), 40.0) for s in range(4)])
    assert fields.std() == pytest.approx(1.0, abs=0.25)
    assert np.abs(np.diff(fields, axis=-1)).max() < 0.4


def test_saved_case_has_the_layout_of_a_data_folder(tmp_path):
    for seed in (0, 11):
        save_case(tmp_path / "people", seed, modality="CT", shape=(6, 32, 32))
    folder = tmp_path / "people"
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset == {
        "name": "people",
        "modality": "CT",
        "labels": {"1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"},
        "cases": ["00", "11"],
    }
    phantom = make_patient(11, "CT", (6, 32, 32))
    image = Volume.read(folder / "11_image.nii.gz")
    assert np.array_equal(image.array, phantom.volume.array)
    assert image.geometry.same_as(phantom.volume.geometry)
    label = sitk.ReadImage(str(folder / "11_label.nii.gz"))
    assert label.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(label), phantom.labels)


def test_a_folder_of_another_modality_is_refused_and_left_alone(tmp_path):
    save_case(tmp_path, 0, modality="CT", shape=(4, 16, 16))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OutputError, match="modality CT"):
        save_case(tmp_path, 1, modality="MR", shape=(4, 16, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_description_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(OutputError, match="not JSON"):
        save_case(tmp_path, 1, shape=(4, 16, 16))
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"modality": "PET"}, {"shape": (4, 0, 4)}, {"shape": (4, 4)}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ConfigError):
        make_patient(**{"seed": 0, "shape": (4, 16, 16), **arguments})


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def best_window_dice(phantom: Phantom, name: str) -> float:
    """Dice of the best of all brightness windows, chosen with the truth at hand."""
    edges = np.unique(np.quantile(phantom.volume.array, np.linspace(0, 1, 81)))
    everything = np.r_[0, np.histogram(phantom.volume.array, edges)[0].cumsum()]
    organ = np.r_[0, np.histogram(phantom.volume.array[voxels(phantom, name)], edges)[0].cumsum()]
    found, chosen = organ[None] - organ[:, None], everything[None] - everything[:, None]
    return float(np.triu(2 * found / np.maximum(organ[-1] + chosen, 1)).max())
