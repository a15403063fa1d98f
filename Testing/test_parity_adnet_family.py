"""Parity with the published programs of ADNet and Q-Net, on golden vectors (their README says how they were made).

Case lists, shapes, seeds and parameters are read from the files, so that other vectors of the same layout can be run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.objectives.adnet import AdnetObjective  # noqa: E402
from fewshotseg_training.objectives.adnet3d import Adnet3dObjective  # noqa: E402
from fewshotseg_training.objectives.base import Recipe  # noqa: E402
from fewshotseg_training.objectives.losses import boundary_loss  # noqa: E402
from fewshotseg_training.objectives.qnet import QnetObjective  # noqa: E402
from fewshotseg_training.sampling import Sampler, excluded_slices  # noqa: E402
from fewshotseg_training.scans import TrainingScan  # noqa: E402
from FewShotSegLib.anomaly import anomaly, margin, probabilities  # noqa: E402
from FewShotSegLib.encoders import create_encoder  # noqa: E402
from FewShotSegLib.encoders_qnet import QnetEncoder  # noqa: E402
from FewShotSegLib.evaluation.adnet_protocol import chunk_bounds, overlapping_folds, support_positions, taught_by  # noqa: E402
from FewShotSegLib.evaluation.protocol import FOLDS, Counts, slices_with  # noqa: E402
from FewShotSegLib.methods.qnet import refined  # noqa: E402
from FewShotSegLib.prototypes import published_average  # noqa: E402

pytestmark = pytest.mark.parity

Cases = dict[str, dict[str, np.ndarray]]


def load(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / "adnet_family" / f"{name}.npz", allow_pickle=False) as data:
        return dict(data)


def cases(folder: Path, name: str) -> Cases:
    """The arrays of a file by case and key."""
    found: Cases = {}
    for key, value in load(folder, name).items():
        case, rest = key.split("/", 1)
        found.setdefault(case, {})[rest] = value
    assert found
    return found


def floats(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


def assert_close(actual: Tensor, expected: np.ndarray, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(actual.detach().numpy().reshape(expected.shape), expected, rtol=0, atol=tolerance, err_msg=what)


def assert_same_gradient(actual: Tensor | None, expected: np.ndarray, what: str) -> None:
    assert actual is not None, what
    found = actual.numpy().reshape(expected.shape)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max() + 1e-9, what


def check_losses(terms: Mapping[str, Tensor], case: Mapping[str, np.ndarray], tolerance: float, what: str) -> Tensor:
    names = {"query": "query_loss", "alignment": "align_loss", "threshold": "t_loss"}
    assert set(terms) <= set(names)
    for name, value in terms.items():
        assert_close(value, case[names[name]], tolerance, f"{what} {name}")
    total = sum(terms.values(), torch.zeros(()))
    assert_close(total, case["total_loss"], tolerance, f"{what} total")
    return total


# ---------------------------------------------------------------- ADNet's heads


def test_adnet_2d(golden_dir: Path) -> None:
    for name, case in cases(golden_dir, "adnet2d_head").items():
        objective = AdnetObjective(faithful=True)
        method = objective.method
        nn.init.constant_(objective.head.t, float(case["t"]))
        support, query = floats(case["supp_fts"]).requires_grad_(), floats(case["qry_fts"]).requires_grad_()
        masks = floats(case["supp_mask"])
        memory = method.remember(support, masks)
        assert_close(published_average(support, masks), case["proto_per_shot"], 1e-5, f"{name} proto_per_shot")
        assert_close(memory.prototype, case["prototype"], 1e-5, f"{name} prototype")
        assert_close(anomaly(query, memory.prototype), case["anomaly"], 1e-5, f"{name} anomaly")
        logits = method.score(query, memory)
        assert_close(logits.softmax(1)[:, 1], case["pred_lowres"], 1e-5, f"{name} pred_lowres")
        size = (masks.shape[1], masks.shape[2])
        assert_close(probabilities(logits[:, 1], size), case["prob"], 1e-5, f"{name} prob")
        if "query_label" in case:
            found, terms = objective.episode(support, masks, query, torch.from_numpy(case["query_label"]))
            assert_close(found, case["prob"], 1e-5, f"{name} prob in training")
            check_losses(terms, case, 1e-5, name).backward()
            assert_same_gradient(objective.head.t.grad, case["grad_t"], f"{name} grad_t")
            assert_same_gradient(support.grad, case["grad_supp_fts"], f"{name} grad_supp_fts")
            assert_same_gradient(query.grad, case["grad_qry_fts"], f"{name} grad_qry_fts")


def test_adnet_3d(golden_dir: Path) -> None:
    for name, case in cases(golden_dir, "adnet3d_head").items():
        objective = Adnet3dObjective(faithful=True)
        method = objective.method
        nn.init.constant_(objective.head.t, float(case["t"]))
        volumes, query = floats(case["supp_fts"]).transpose(1, 2), floats(case["qry_fts"]).transpose(1, 2)[0]
        masks = floats(case["supp_mask"])
        memory = method.average([method.remember(volume, masks) for volume in volumes])
        assert_close(memory.prototype, case["prototype"], 1e-5, f"{name} prototype")
        scores = anomaly(query, memory.prototype)
        assert_close(scores, case["anomaly"], 1e-5, f"{name} anomaly")
        found = probabilities(margin(scores, memory.threshold), (masks.shape[1], masks.shape[2]))
        assert_close(found.transpose(0, 1), case["prob"], 1e-5, f"{name} prob")
        if "query_label" in case:
            _, terms = objective.episode(volumes[0], masks, query, torch.from_numpy(case["query_label"]))
            check_losses(terms, case, 1e-5, name)


# ---------------------------------------------------------------- Q-Net's head


def test_qnet(golden_dir: Path) -> None:
    for name, case in cases(golden_dir, "qnet_head").items():
        objective = QnetObjective(faithful=True, alpha=float(case["alpha"]), refine=int(case["n_iters"]))
        method = objective.method
        scales = [floats(case["fts_down2"]), floats(case["fts_down3"])]
        support, query = [scale[:-1] for scale in scales], [scale[-1:] for scale in scales]
        masks, threshold = floats(case["supp_mask"]), floats(case["tao"])[-1]
        memory = method.remember_scales(support, masks)
        for i, (prototype, scale) in enumerate(zip(memory.prototypes, query, strict=True)):
            if f"proto_scale{i}" in case:
                assert_close(prototype, case[f"proto_scale{i}"], 1e-5, f"{name} proto_scale{i}")
                before = margin(anomaly(scale, prototype), threshold).sigmoid()
                assert_close(before, case[f"pred0_scale{i}"], 1e-5, f"{name} pred0_scale{i}")
                after = refined(scale, prototype[None], threshold, int(case["n_iters"]), faithful=True)
                assert_close(after, case[f"refined_proto_scale{i}"], 1e-4, f"{name} refined_proto_scale{i}")
        size = (masks.shape[1], masks.shape[2])
        organ = method.fused(method.margins(query, memory, threshold), size)
        assert_close(torch.stack([1 - organ, organ], 1), case["prob"], 1e-4 if case["n_iters"] else 1e-5, f"{name} prob")
        if "query_label" in case:
            labels = torch.from_numpy(case["query_label"])
            found, terms = objective.episode_of_scales(support, masks, query, labels, threshold)
            assert_close(found, case["prob"], 1e-5, f"{name} prob in training")
            check_losses(terms, case, 1e-5, name)


def test_boundary_loss(golden_dir: Path) -> None:
    for name, case in cases(golden_dir, "boundary_loss").items():
        assert_close(boundary_loss(floats(case["prob"]), torch.from_numpy(case["gt"])), case["loss"], 1e-6, name)


# ---------------------------------------------------------------- encoders

Formula = Callable[..., np.ndarray]


def formula(folder: Path) -> tuple[Formula, Formula, dict[str, object]]:
    """`encoder_weight` and `ft` of the vectors' own program, and their meta data."""
    at = folder / "adnet_family"
    spec = importlib.util.spec_from_file_location("golden_formula", at / "formula.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.encoder_weight, module.ft, json.loads((at / "meta.json").read_text())


def fill(network: nn.Module, weight: Formula, prefix: str, rename: Callable[[str], str]) -> nn.Module:
    """The network in float64 with the formula's weights, rounded to float32 as they were; counters of batches stay."""
    tensors = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = tensor
        else:
            tensors[name] = floats(weight(prefix + rename(name), tuple(tensor.shape))).double()
    network.double().load_state_dict(tensors)
    return network.eval()


@torch.no_grad()
def test_adnet_encoder(golden_dir: Path) -> None:
    data, (weight, ft, meta) = load(golden_dir, "encoder_adnet"), formula(golden_dir)

    def published(name: str) -> str:
        return name.replace("trunk.", "backbone.", 1).replace("project.", "localconv.", 1)

    encoder = fill(create_encoder("resnet101", channels=data["out256"].shape[1]), weight, "adenc.", published)
    image = floats(ft(meta["image_key"], tuple(data["input_shape"]), 2.0)).double()
    stage = encoder.trunk(image)
    assert_close(stage.mean((0, 2, 3)), data["layer4_mean"], 1e-6, "layer4_mean")
    assert_close(stage[:, :8], data["layer4_ch0_7"], 1e-6, "layer4_ch0_7")
    np.testing.assert_allclose(stage.norm().item(), data["layer4_norm"], rtol=1e-6)
    assert_close(encoder.project(stage), data["out256"], 1e-6, "out256")


@torch.no_grad()
def test_qnet_encoder(golden_dir: Path) -> None:
    data, (weight, ft, meta) = load(golden_dir, "encoder_qnet"), formula(golden_dir)
    encoder = fill(QnetEncoder(), weight, "qenc.", lambda name: name)
    found = encoder(floats(ft(meta["image_key"], tuple(data["input_shape"]), 2.0)).double())
    assert_close(found.fine[:, :32], data["down2_ch0_31"], 1e-6, "down2_ch0_31")
    assert_close(found.fine.mean((0, 2, 3)), data["down2_mean"], 1e-6, "down2_mean")
    assert_close(found.coarse, data["down3"], 1e-6, "down3")
    assert_close(found.threshold, data["t"], 1e-6, "t")


# ---------------------------------------------------------------- episodes and protocol


def test_episodes(golden_dir: Path) -> None:
    recipe = Recipe(source="supervoxel", adjacent=True)
    for name, case in cases(golden_dir, "episodes").items():
        regions, truth, exclude = case["supervoxels"], case["gt"], case["exclude"].astype(int).tolist()
        present = np.stack([(truth == label).any((1, 2)) for label in exclude], 1) if exclude else None
        scan = TrainingScan(name, np.zeros(regions.shape, np.float16), regions, 1.0, labels=tuple(exclude), present=present)
        for rule, key in (("all", "excluded_slices_AND"), ("any", "excluded_slices_OR")):
            if key in case:
                assert np.flatnonzero(excluded_slices(scan.shows(exclude), rule)).tolist() == case[key].tolist(), name
        sampler = Sampler([[scan]], replace(recipe, min_pixels=int(case["min_size"])), exclude, "all")
        rng = np.random.default_rng(0)
        wanted = {tuple(row) for row in case["reachable_class_suppz_qryz"].tolist()}
        drawn = [sampler.draw(rng) for _ in range(60 * len(wanted))]
        assert {(d.id, *d.support, *d.query) for d in drawn} == wanted, name


def test_protocol_tables(golden_dir: Path) -> None:
    data = load(golden_dir, "eval_protocol")
    tables = [key for key in data if key.startswith(("support_index/", "chunk_bounds/"))]
    assert tables
    for key in tables:
        kind, parts = key.split("/n")
        rule = support_positions if kind == "support_index" else chunk_bounds
        assert [rule(count, int(parts)) for count in range(1, len(data[key]) + 1)] == data[key].tolist(), key
    sets = {key.split("/")[1] for key in data if key.startswith("folds/")}
    assert sets
    for name in sets:
        expected = [data[f"folds/{name}/{i}"].tolist() for i in range(FOLDS)]
        scans = range(1 + max(map(max, expected)))
        assert overlapping_folds(scans) == expected, name


def test_protocol_on_labels(golden_dir: Path) -> None:
    toys = {name: case for name, case in cases(golden_dir, "eval_protocol").items() if name.startswith("toy")}
    assert toys
    for name, case in toys.items():
        for label in sorted({int(key.split("/")[0][1:]) for key in case if key.startswith("c")}):
            shown = slices_with(case["label"], label)
            assert shown == case[f"c{label}/fg_slices"].tolist(), name
            assert taught_by(len(shown), 3) == case[f"c{label}/query_slice_to_support3"].tolist(), name
            for shots in (1, 3):
                slices = [shown[i] for i in support_positions(len(shown), shots)]
                assert slices == case[f"c{label}/support_slices_n{shots}"].tolist(), name


def test_dice(golden_dir: Path) -> None:
    case = cases(golden_dir, "eval_protocol")["dice"]
    counts = [Counts.of(p, t) for p, t in zip(case["pred"], case["label"], strict=True)]
    none = Counts.of(np.zeros(1), np.zeros(1))
    for key, values in (("patient_dice_last_is_empty_case", "dice"), ("patient_iou", "iou")):
        np.testing.assert_allclose([getattr(c, values) for c in (*counts, none)], case[key], atol=1e-6)
    np.testing.assert_allclose(sum(counts, Counts()).dice, case["pooled_dice"], atol=1e-6)
