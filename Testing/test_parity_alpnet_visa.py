"""Parity with the published SSL-ALPNet and VISA-FSS programs, on golden vectors (their README says how they were made).

Case lists, shapes, seeds and parameters are read from the files, so that other vectors of the same layout can be run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from fewshotseg_training.objectives.alpnet import alignment_loss, episode_loss, query_loss, training_window
from fewshotseg_training.objectives.visa import area_change, interslice_loss
from FewShotSegLib.errors import SupportError
from FewShotSegLib.evaluation.protocol import (
    Counts,
    DiceTable,
    circular_folds,
    pooled_mean_std,
    query_slices,
    slices_with,
    zscore,
)
from FewShotSegLib.flow import FlowNetwork, s2v, superpixel_clean, warp, warp_masks
from FewShotSegLib.methods.alpnet import Alpnet, AlpnetConfig, alp_prototypes
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.visa import Refine, Teacher, propagate_chunks, s2v_refine
from FewShotSegLib.prototypes import nearest_prototype, prototype_scores, resize_masks, unit
from FewShotSegLib.strategies.chunks import chunk_of, pick_slices

pytestmark = pytest.mark.parity

CONFIG = AlpnetConfig(faithful=True)


def load(folder: Path, name: str) -> NpzFile:
    return np.load(folder / "alpnet_visa" / f"{name}.npz", allow_pickle=False)


def floats(data: NpzFile, key: str) -> Tensor:
    return torch.from_numpy(data[key].astype(np.float32))


def assert_close(actual: Tensor | np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=what)


def assert_agree(actual: np.ndarray, expected: np.ndarray, allowed: float, what: str) -> None:
    """At most the fraction `allowed` of the elements may differ."""
    assert actual.shape == expected.shape, what
    assert (actual != expected).mean() <= allowed, f"{what}: {(actual != expected).mean():.5f} differ"


def index(data: NpzFile) -> list[list[str]]:
    return [line.split("|") for line in data["index"].tolist()]


# ---------------------------------------------------------------- a: the ALP module


def window_of(name: str, cells: int, grid: int) -> int:
    """The block side that a line of an index names: train, val2, eval_val_wsize2."""
    return training_window(cells, grid) if name == "train" else int(name.removeprefix("eval_val_wsize").removeprefix("val"))


def check_module_call(data: NpzFile, case: str, role: str, mode: str, window: str, outcome: str, count: int) -> None:
    _, cells, grid, _ = data["params"].tolist()
    what = f"{case}|{role}|{mode}|{window}"
    key = f"{case}_{role}_{mode.replace('+', 'p')}_{window}_"
    query = floats(data, f"{case}_qry")
    prototypes = alp_prototypes(
        floats(data, f"{case}_sup"), floats(data, f"{case}_{role}"), mode, window_of(window, cells, grid), CONFIG.tau
    )
    assert len(prototypes) == count, what
    if outcome == "raises":
        with pytest.raises(SupportError):
            prototype_scores(query, prototypes, CONFIG.temperature)
        return
    scores = prototype_scores(query, prototypes, CONFIG.temperature)
    assert_close(scores[:, None], data[key + "pred"], 1e-4, what)
    if mode != "mask":
        assert_agree(nearest_prototype(query, prototypes).numpy(), data[key + "assign"], 1e-3, what)
    if count <= 12:
        plain = mode == "mask"
        assert_close(prototypes if plain else unit(prototypes, 1), data[key + "protos"], 1e-5 if plain else 1e-6, what)


def test_group_a_alp_module(golden_dir: Path) -> None:
    data = load(golden_dir, "a_alp_module")
    calls = [line for line in index(data) if len(line) == 6 and line[4].startswith("P=")]
    assert calls
    for case, role, mode, window, count, outcome in calls:
        check_module_call(data, case, role, mode, window, outcome, int(count.removeprefix("P=")))


def test_group_a_masks_gate_and_modes(golden_dir: Path) -> None:
    data = load(golden_dir, "a_alp_module")
    _, cells, grid, _ = data["params"].tolist()
    cases = [line for line in index(data) if line[-1].startswith("fgmode=")]
    assert cases
    for case, *_, fgmode in cases:
        organ = floats(data, f"{case}_fg_full")
        assert_close(resize_masks(organ, (cells, cells)), data[f"{case}_fg"], 1e-6, case)
        assert_close(resize_masks(1 - organ, (cells, cells)), data[f"{case}_bg"], 1e-6, case)
        for window in (training_window(cells, grid), 2):
            method = Alpnet(AlpnetConfig(window=window))
            memory = method.remember(floats(data, f"{case}_sup"), organ)
            assert memory.foreground_mode == fgmode.removeprefix("fgmode="), case


# ---------------------------------------------------------------- b, c: losses and the whole head


def test_group_b_alignment_loss(golden_dir: Path) -> None:
    data = load(golden_dir, "b_align_loss")
    _, cells, grid, _ = data["params"].tolist()
    method = Alpnet(AlpnetConfig(window=training_window(cells, grid), faithful=True))
    assert index(data)
    for case, *rest in index(data):
        support, query = floats(data, f"{case}_sup").requires_grad_(), floats(data, f"{case}_qry").requires_grad_()
        arguments = (method, support, query, floats(data, f"{case}_fg_full"), floats(data, f"{case}_pred"))
        if "raises" in rest:
            assert np.isnan(data[f"{case}_loss"])
            with pytest.raises(SupportError):
                alignment_loss(*arguments)
            continue
        loss = alignment_loss(*arguments)
        loss.backward()
        assert_close(loss, data[f"{case}_loss"], 1e-5, case)
        assert_close(support.grad, data[f"{case}_grad_sup"], 1e-5, f"{case} grad_sup")
        assert_close(query.grad, data[f"{case}_grad_qry"], 1e-5, f"{case} grad_qry")


def test_group_c_forward(golden_dir: Path) -> None:
    data = load(golden_dir, "c_forward")
    _, cells, grid, _ = data["params"].tolist()
    assert index(data)
    for case, *rest in index(data):
        train = "train" in rest
        window = next(window_of(word, cells, grid) for word in rest if word.startswith(("train", "eval")))
        method = Alpnet(AlpnetConfig(window=window, faithful=True))
        support, masks, query = (floats(data, f"{case}_{key}") for key in ("sup", "fg_full", "qry"))
        labels = torch.from_numpy(data[f"{case}_qry_label"])
        if train:
            loss = episode_loss(method, support, masks, query, labels)
            assert_close(loss.alignment, data[f"{case}_align_loss"], 1e-5, case)
            logits = loss.logits
        else:
            logits = upsample(method.score(query, method.remember(support, masks)), tuple(labels.shape[1:]))
        assert_close(query_loss(logits, labels), data[f"{case}_query_loss"], 1e-5, case)
        assert_close(logits[:, :, 3::8, 3::8], data[f"{case}_logits_s8"], 1e-4, case)
        assert_agree(logits.argmax(1).numpy(), data[f"{case}_argmax"], 5e-4, case)
        if f"{case}_logits" in data:
            assert_close(logits, data[f"{case}_logits"], 1e-4, case)


# ---------------------------------------------------------------- e: protocol

DATASETS = ("e_protocol_CHAOST2", "e_protocol_SABS")


def classmap_of(data: NpzFile) -> list[dict[int, list[int]]]:
    """Slices by label number and scan id."""
    return [{int(scan): z for scan, z in scans.items()} for scans in json.loads(str(data["classmap"])).values()]


def fold_lines(data: NpzFile) -> list[tuple[list[int], list[int]]]:
    """(training ids, validation ids) of every fold."""
    rows = (line.split("|")[1:] for line in data["folds"].tolist())
    return [tuple([int(i) for i in part.split("=")[1].split(",")] for part in row) for row in rows]  # type: ignore[misc]


def shots_of(data: NpzFile) -> int:
    """Support scans per fold: what the validation lists hold beyond one round of all scans, spread over the folds."""
    lines = fold_lines(data)
    return (sum(len(validation) for _, validation in lines) - len(data["scan_ids"])) // len(lines)


@pytest.mark.parametrize("name", DATASETS)
def test_group_e_folds(golden_dir: Path, name: str) -> None:
    data = load(golden_dir, name)
    expected = fold_lines(data)
    folds = circular_folds(sorted(data["scan_ids"].tolist()), len(expected), shots_of(data))
    assert [(list(f.training), [*f.queries, *f.supports]) for f in folds] == expected


@pytest.mark.parametrize("name", DATASETS)
def test_group_e_classmap_and_support(golden_dir: Path, name: str) -> None:
    data = load(golden_dir, name)
    classmap = classmap_of(data)
    volumes = {int(key.removeprefix("vol_label_")): data[key] for key in data if key.startswith("vol_label_")}
    assert volumes
    for scan, labels in volumes.items():
        for label, slices in enumerate(classmap):
            assert slices_with(labels, label) == slices[scan], f"label {label} of scan {scan}"
    rows = data["support"].tolist()
    folds = circular_folds(sorted(data["scan_ids"].tolist()), len(fold_lines(data)), shots_of(data))
    chunks = 1 + max(row[3] for row in rows)
    for fold, label, scan, chunk, z, pixels in rows:
        assert scan in folds[fold].supports
        assert pick_slices(classmap[label][scan], chunks)[chunk] == z
        if scan in volumes:
            assert (volumes[scan][z] == label).sum() == pixels


@pytest.mark.parametrize("name", DATASETS)
def test_group_e_query_slices(golden_dir: Path, name: str) -> None:
    data = load(golden_dir, name)
    classmap, rows = classmap_of(data), data["query"].tolist()
    labels = sorted({row[1] for row in rows})
    chunks = 1 + int(data["support"][:, 3].max())
    found = []
    for number, fold in enumerate(circular_folds(sorted(data["scan_ids"].tolist()), len(fold_lines(data)), shots_of(data))):
        tested = [label for label in labels if any(row[:2] == [number, label] for row in rows)]
        for label in tested:
            for scan in fold.queries:
                shown = classmap[label][scan]
                for s in query_slices(shown, int(data[f"nslices_{scan}"]), chunks):
                    found.append([number, label, scan, s.z, s.chunk, min(shown), max(shown), int(s.evaluated)])
    assert found == rows


@pytest.mark.parametrize("name", DATASETS)
def test_group_e_metric(golden_dir: Path, name: str) -> None:
    data = load(golden_dir, name)
    pixels = int(np.prod(data["hw"]))
    folds = [key.removeprefix("metric_key_") for key in data if key.startswith("metric_key_")]
    assert folds
    for fold in folds:
        predicted, truth = (np.unpackbits(data[f"metric_{kind}_{fold}"], axis=1)[:, :pixels] for kind in ("pred", "gt"))
        counts: dict[tuple[int, int], Counts] = {}
        for (label, scan, _), p, t in zip(data[f"metric_key_{fold}"].tolist(), predicted, truth, strict=True):
            counts[scan, label] = counts.get((scan, label), Counts()) + Counts.of(p, t)
        table = DiceTable.of(counts, faithful=True)
        assert_close(table.dice, data[f"metric_rawdice_{fold}"], 1e-9, f"fold {fold}")
        assert_close(table.label_mean, data[f"metric_classdice_{fold}"], 1e-9, f"fold {fold}")
        assert_close(table.label_std, data[f"metric_classstd_{fold}"], 1e-9, f"fold {fold}")
        assert_close(np.asarray(table.mean), data[f"metric_meandice_{fold}"], 1e-9, f"fold {fold}")


@pytest.mark.parametrize("name", DATASETS)
def test_group_e_intensities(golden_dir: Path, name: str) -> None:
    data = load(golden_dir, name)
    has_mr, has_ct = "mr_img" in data, len(data["ct_stats"]) > 0
    assert has_mr or has_ct
    if has_mr:
        assert_close(zscore(data["mr_img"]), data["mr_norm"], 1e-4, "mr_norm")
    folds = fold_lines(data)
    for fold, mean, std in data["ct_stats"].reshape(-1, 3):
        found = pooled_mean_std(data[f"imgsum_{scan}"] for scan in folds[int(fold)][0])
        np.testing.assert_allclose(found, (mean, std), rtol=1e-5, atol=1e-3)


# ---------------------------------------------------------------- f: flow and propagation


def test_group_f_warp(golden_dir: Path) -> None:
    data = load(golden_dir, "f_visa_flow")
    flow = floats(data, "warp_flow")
    image, mask = (floats(data, f"warp_{kind}").expand(len(flow), -1, -1) for kind in ("img", "mask"))
    for name, faithful in (("ref", True), ("true", False)):
        assert_close(warp(image[:, None], flow, faithful=faithful)[:, 0], data[f"warp_img_{name}"], 1e-4, name)
        if f"warp_mask_{name}" in data:
            assert_close(warp(mask[:, None], flow, faithful=faithful)[:, 0], data[f"warp_mask_{name}"], 1e-4, name)
        rounded = warp_masks(mask, flow, faithful=faithful).numpy()
        differing = (rounded != data[f"warp_mask_{name}_round"]).sum((1, 2))
        assert differing.max() <= 2, f"{name}: {differing}"


def golden_network(data: NpzFile) -> FlowNetwork:
    names = {f"enc{i + 1}": f"encoder.{i}" for i in range(4)} | {f"dec{i}": f"decoder.{i}" for i in range(5)}
    weights = {}
    for key in data:
        if key.startswith("w_"):
            layer, kind = key.removeprefix("w_").rsplit("_", 1)
            weights[f"{names.get(layer, layer)}.{kind}"] = floats(data, key)
    network = FlowNetwork()
    network.load_state_dict(weights)
    return network


@torch.no_grad()
def test_group_f_flow_network(golden_dir: Path) -> None:
    data = load(golden_dir, "f_visa_flow")
    target = floats(data, "unet_trg")
    source = floats(data, "unet_src").expand_as(target)
    flow = golden_network(data)(source, target)
    assert_close(flow, data["unet_disp"], 1e-4, "flow")
    assert_close(warp(source[:, None], flow, faithful=True)[:, 0], data["unet_moved"], 1e-4, "moved")


def test_group_f_losses(golden_dir: Path) -> None:
    data = load(golden_dir, "f_visa_flow")
    logits = floats(data, "loss_logits")
    assert_close(interslice_loss(logits), data["loss_dice_interslice"], 1e-6, "L2.5D")
    assert_close(area_change(logits), data["loss_fg_size"], 1e-2, "area")


def test_group_f_refinements(golden_dir: Path) -> None:
    data = load(golden_dir, "f_visa_flow")
    arguments = [torch.from_numpy(data[f"s2v_{key}"]) for key in ("s1", "s2", "m1", "m2")]
    windows = [int(key.removeprefix("s2v_k")) for key in data if key.startswith("s2v_k")]
    assert windows
    for window in windows:
        np.testing.assert_array_equal(s2v(*arguments, window=window).numpy(), data[f"s2v_k{window}"] > 0.5)


def test_group_f_superpixel_cleaning(golden_dir: Path) -> None:
    data = load(golden_dir, "f_visa_flow")
    ratios = [key.removeprefix("spref_out_r") for key in data if key.startswith("spref_out_r")]
    assert ratios
    for ratio in ratios:  # "05" is 0.5; depends on the version of scikit-image, hence the room
        cleaned = superpixel_clean(data["spref_img"], data["s2v_m2"], float(f"{ratio[0]}.{ratio[1:]}"))
        assert_agree(cleaned, data[f"spref_out_r{ratio}"] > 0.5, 0.01, ratio)


class StubScan:
    """The golden segmenter: a pixel is organ where it differs by less than tau from the mean under the teacher's mask."""

    def __init__(self, data: NpzFile, support: int, query: int, label: int) -> None:
        self.data, self.support, self.query, self.label = data, support, query, label
        self.images = {scan: torch.from_numpy(zscore(data[f"img_{scan}"])) for scan in (support, query)}
        drawn = torch.from_numpy(data[f"lab_{support}"] == label)
        classmap = classmap_of(data)[label]
        self.drawn_z = pick_slices(classmap[support])
        self.drawn = drawn[list(self.drawn_z)]
        self.shown = classmap[query]
        self.calls: list[tuple[int, int, int, int, int]] = []
        self.outputs: list[np.ndarray] = []

    def segment(self, teacher: Teacher, z: int) -> Tensor:
        scan, source = (self.support, self.drawn_z[teacher.chunk]) if teacher.z is None else (self.query, teacher.z)
        mask = self.drawn[teacher.chunk] if teacher.mask is None else teacher.mask
        values = self.images[scan][source][mask]
        mean = values.mean() if len(values) else torch.tensor(0.0)
        found = (self.images[self.query][z] - mean).abs() < float(self.data["tau"])
        self.calls.append((scan, source, self.query, z, int(mask.sum())))
        self.outputs.append(found.numpy())
        return found

    def refine(self) -> Refine:
        return s2v_refine(self.images[self.support][list(self.drawn_z)], self.drawn, self.images[self.query])

    def run(self, refined: bool) -> Counts:
        extent = (min(self.shown), max(self.shown))
        visits = propagate_chunks(
            extent,
            pick_slices(self.shown),
            lambda z: chunk_of(z, extent, clip=False),
            self.segment,
            self.refine() if refined else None,
            faithful=True,
        )
        truth = self.data[f"lab_{self.query}"] == self.label
        return sum((Counts.of(mask.numpy(), truth[z]) for z, mask in visits), Counts())


@pytest.mark.parametrize("name", ["norefine", "s2v"])
def test_group_f_propagation(golden_dir: Path, name: str) -> None:
    data = load(golden_dir, f"f_visa_propagation_{name}")
    support = int(data["calls"][0, 0])
    queries = list(dict.fromkeys(data["calls"][:, 2].tolist()))
    labels = sorted(set().union(*(np.unique(data[f"lab_{scan}"]).tolist() for scan in (support, *queries))) - {0})
    counts, calls, outputs = {}, [], []
    for label in labels:
        for query in queries:
            scan = StubScan(data, support, query, label)
            counts[query, label] = scan.run(refined=name == "s2v")
            calls += scan.calls
            outputs += scan.outputs
    expected, pixels = data["calls"], int(np.prod(data["hw"]))
    np.testing.assert_array_equal(np.array(calls)[:, :4], expected[:, :4])
    np.testing.assert_allclose(np.array(calls)[:, 4], expected[:, 4], rtol=1e-3)
    masks = np.unpackbits(data["preds_packed"], axis=1)[:, :pixels].astype(bool)
    assert_agree(np.array(outputs).reshape(len(outputs), -1), masks, 1e-3, "masks")
    assert DiceTable.of(counts, faithful=True).mean == pytest.approx(float(data["mean_dice"]), abs=1e-3)
