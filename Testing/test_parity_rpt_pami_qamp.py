"""Parity with the published programs of RPT, PAMI and QAMP, on golden vectors (their README says how they were made).

Case lists, shapes, seeds and weights are read from the files, so that other vectors of the same layout can be run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.objectives.losses import boundary_loss, likelihood_loss  # noqa: E402
from fewshotseg_training.objectives.pami import PamiObjective, coarse_loss  # noqa: E402
from fewshotseg_training.objectives.qamp import QampObjective  # noqa: E402
from fewshotseg_training.objectives.regional import Pixels, Task, alignment  # noqa: E402
from fewshotseg_training.objectives.rpt import RptObjective, ring_loss, self_loss  # noqa: E402
from FewShotSegLib.anomaly import anomaly, margin, probabilities  # noqa: E402
from FewShotSegLib.attention import affinity, region_weights  # noqa: E402
from FewShotSegLib.methods.pami import Pami, PamiConfig  # noqa: E402
from FewShotSegLib.methods.pami_block import PrdBlock  # noqa: E402
from FewShotSegLib.methods.qamp import Qamp  # noqa: E402
from FewShotSegLib.methods.qamp_banks import Banks, drawn  # noqa: E402
from FewShotSegLib.methods.regional import RegionMethod  # noqa: E402
from FewShotSegLib.methods.rpt import BatBlock, Rpt, RptConfig  # noqa: E402
from FewShotSegLib.regions import cut, regional_prototypes, touched_cells  # noqa: E402

pytestmark = pytest.mark.parity

Arrays = dict[str, np.ndarray]
PIXELS = Pixels(faithful=True)

COMMON = {
    "MHA.w_qs": "attention.query",
    "MHA.w_ks": "attention.key",
    "MHA.w_vs": "attention.value",
    "MHA.fc": "attention.join",
    "MHA.layer_norm": "attention.norm",
    "MLP.mlp.0": "mlp.wide",
    "MLP.mlp.2": "mlp.narrow",
    "MLP.norm": "mlp.norm",
    "layer_norm": "norm",
}
NAMES = {
    "rpt": COMMON,
    "pami": COMMON
    | {
        "query_token": "inject",
        "spatial_scale": "spatial",
        "SELayer.fc.0": "channel.squeeze",
        "SELayer.fc.2": "channel.excite",
        "fusion_1.0": "fuse_regions.wide",
        "fusion_1.2": "fuse_regions.narrow",
        "fusion_2.0": "fuse_channels.wide",
        "fusion_2.2": "fuse_channels.narrow",
        "supp_scale": "merge",
    },
    "qamp": {
        f"{theirs}{number}.{layer}": f"{ours}_{name}"
        for theirs, layers in (
            ("mlp", {"reduce.0": "mix.first", "reduce.2": "mix.second"}),
            (
                "decoder",
                {
                    "res1.0": "decoder.enter",
                    "res2.0": "decoder.residual.0",
                    "res2.2": "decoder.residual.2",
                    "down.0": "decoder.leave.0",
                    "down.3": "decoder.leave.3",
                },
            ),
        )
        for layer, name in layers.items()
        for number, ours in ((1, "organ"), (2, "background"))
    },
}
"""Published name of a layer -> ours; layers that are never used are left out."""


def load(folder: Path, name: str) -> Arrays:
    with np.load(folder / "adnet_family" / f"{name}.npz", allow_pickle=False) as data:
        return dict(data)


def cases(data: Arrays) -> dict[str, Arrays]:
    found: dict[str, Arrays] = {}
    for key, value in data.items():
        case, _, rest = key.rpartition("/")
        found.setdefault(case, {})[rest] = value
    return found


def floats(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


def assert_close(actual: Tensor, expected: np.ndarray, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(actual.detach().numpy().reshape(expected.shape), expected, rtol=0, atol=tolerance, err_msg=what)


@pytest.fixture(scope="module")
def formula(golden_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("formula", golden_dir / "adnet_family" / "formula.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def seed(golden_dir: Path) -> int:
    return json.loads((golden_dir / "adnet_family" / "meta.json").read_text())["seed"]


Fill = Callable[[nn.Module, str], None]


@pytest.fixture(scope="module")
def fill(golden_dir: Path, formula: ModuleType, seed: int) -> Fill:
    """Puts the golden weights of a method into our module; every weight of ours must be among them."""
    shapes = json.loads((golden_dir / "adnet_family" / "param_names.json").read_text())

    def fill(module: nn.Module, method: str) -> None:
        weights = {}
        for name, shape in shapes[method].items():
            layer, kind = name.rsplit(".", 1)
            if layer in NAMES[method]:
                weights[f"{NAMES[method][layer]}.{kind}"] = floats(formula.head_weight(f"{method}{seed}.{name}", shape))
        missing, unexpected = module.load_state_dict(weights, strict=False)
        assert not unexpected
        assert {name.split(".")[0] for name in missing} <= {"threshold"}  # given with the vectors
        module.eval()

    return fill


# ---------------------------------------------------------------- blocks


def test_regions(golden_dir: Path) -> None:
    for name, case in cases(load(golden_dir, "voronoi_regions")).items():
        features, count = floats(case["fts"])[0], int(case["k"])
        cells = touched_cells(floats(case["supp_mask"]), tuple(features.shape[1:]), count)
        regions = cut(cells, count, int(case["first_index"]))
        np.testing.assert_array_equal(regions.numpy(), case["region_map"], name)
        rows, columns = case["centres_yx"].T
        np.testing.assert_array_equal(regions[rows, columns].numpy(), np.arange(count), name)
        assert_close(regional_prototypes(features, regions), case["regional_prototypes"], 1e-5, name)


@torch.no_grad()
def test_bat_block(golden_dir: Path, fill: Fill) -> None:
    for name, case in cases(load(golden_dir, "rpt_bat_block")).items():
        prototypes, query = floats(case["P"]), floats(case["q"])
        block = BatBlock(prototypes.shape[1], faithful=True)
        fill(block, "rpt")
        scores = affinity(prototypes, query)
        assert_close(scores, case["affinity"], 2e-5, f"{name} affinity")
        assert_close(region_weights(scores, faithful=True), case["attn"], 2e-5, f"{name} weights")
        assert_close(block.attention(prototypes, prototypes), case["mha_out"], 2e-5, f"{name} attention")
        assert_close(block.mlp(prototypes), case["mlp_out"], 2e-5, f"{name} mlp")
        assert_close(block(prototypes, query), case["bat_out"], 2e-5, f"{name} block")


@torch.no_grad()
def test_prd_block(golden_dir: Path, fill: Fill) -> None:
    case = load(golden_dir, "pami_prd_block")
    prototypes, query = floats(case["P"]), floats(case["q"])
    block = PrdBlock(prototypes.shape[1], len(prototypes), faithful=True)
    fill(block, "pami")
    assert_close(block.channel(prototypes), case["se_out"], 1e-4, "squeeze and excite")
    first = block(prototypes, query)
    assert_close(first, case["prd_out"], 1e-4, "block")
    assert_close(block(first, query), case["prd_out_2nd"], 1e-4, "block again")


def test_boundary_loss(golden_dir: Path) -> None:
    for name, case in cases(load(golden_dir, "boundary_loss")).items():
        assert_close(boundary_loss(floats(case["prob"]), torch.from_numpy(case["gt"])), case["loss"], 1e-6, name)


# ---------------------------------------------------------------- RPT and PAMI


def region_task(features: Tensor, case: Arrays) -> Task:
    return Task(features[:1], floats(case["supp_mask"]), features[1:], torch.from_numpy(case["query_label"]))


def thresholds_of(case: Arrays) -> tuple[Tensor, Tensor]:
    """Of the support slices, and of the query."""
    tao = floats(case["tao"])[:, 0]
    return tao[:-1], tao[-1:]


def found_by(method: RegionMethod, task: Task, thresholds: Tensor) -> Tensor:
    method.trained = True
    memory = method.remember(task.support, task.masks)
    return probabilities(method.margins(task.query, memory, thresholds), task.size)


def rpt_cases(golden_dir: Path) -> Iterator[tuple[str, int, Task, Arrays]]:
    """Name, version, episode and arrays."""
    data = cases(load(golden_dir, "rpt_full_head"))
    for name, case in data.items():
        version = name.split("_")[0]
        if name != version:
            yield name, int(version.removeprefix("v")), region_task(floats(data[version]["fts"]), case), case


@torch.no_grad()
def test_rpt(golden_dir: Path, fill: Fill) -> None:
    for name, version, task, case in rpt_cases(golden_dir):
        method = Rpt(RptConfig(version=version, channels=task.query.shape[1], faithful=True))
        method.trained = True
        assert method.regions == int(case["fg_num"])
        fill(method.head.block, "rpt")
        _, thresholds = thresholds_of(case)
        memory = method.remember(task.support, task.masks)
        kept = memory.prototype if version == 2 else torch.zeros_like(memory.prototype)
        steps = method.steps(task.query, memory, thresholds)[1:]
        assert_close(torch.cat([s.query for s in steps]), case["coarse_query_protos"], 1e-4, f"{name} query prototypes")
        means = torch.cat([s.prototypes for s in steps]) - kept
        assert_close(means, case["mean_regional_proto"], 1e-4, f"{name} means of regions")
        margins = margin(anomaly(task.query, steps[-1].prototypes), thresholds)
        assert_close(probabilities(margins, task.size), case["prob"], 1e-4, f"{name} probability")


@torch.no_grad()
def test_rpt_losses(golden_dir: Path) -> None:
    trained = [case for case in rpt_cases(golden_dir) if "align_loss" in case[3]]
    assert trained
    for name, _, task, case in trained:
        support_thresholds, thresholds = thresholds_of(case)
        own, aligned = alignment(PIXELS, task, floats(case["prob"]), thresholds[0])
        assert_close(aligned, case["align_loss"], 1e-4, f"{name} alignment")
        prototype = PIXELS.pool(task.support, task.masks)[0]
        assert_close(F.mse_loss(own, prototype), case["mse_loss"], 1e-4, f"{name} agreement")
        ring = ring_loss(PIXELS, task.support, task.masks, support_thresholds)
        assert_close(ring, case["periphery_loss"], 1e-4, f"{name} ring")
        assert_close(self_loss(PIXELS, task.query, task.labels, thresholds), case["qry_loss"], 1e-4, f"{name} self")


@torch.no_grad()
def test_pami(golden_dir: Path, fill: Fill) -> None:
    data = cases(load(golden_dir, "pami_full_head"))
    shared = data.pop("")
    features = floats(shared["fts_down2"])
    task = region_task(features, shared)
    support_thresholds, thresholds = thresholds_of(shared)
    for name, case in data.items():
        method = Pami(PamiConfig(regions=int(shared["fg_num"]), channels=features.shape[1], faithful=True))
        fill(method.head.block, "pami")
        found = found_by(method, task, thresholds)
        assert_close(found, case["prob"], 1e-4, f"{name} probability")
        if "align_loss" in case:
            own, aligned = alignment(PIXELS, task, found, support_thresholds.mean())
            prototype = PIXELS.pool(task.support, task.masks)[0]
            assert_close(aligned, case["align_loss"], 1e-4, f"{name} alignment")
            assert_close(F.mse_loss(own, prototype), case["mse_loss"], 1e-4, f"{name} agreement")
            assert_close(coarse_loss(PIXELS, task, prototype, thresholds), case["qry_loss"], 1e-4, f"{name} coarse")


class Given(nn.Module):
    """A threshold network that knows the golden thresholds, by the slice's first feature."""

    def __init__(self, features: Tensor, thresholds: Tensor) -> None:
        super().__init__()
        self.keys, self.values = features[:, 0, 0, 0], thresholds

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([self.values[self.keys == key][0] for key in features[:, 0, 0, 0]])


def test_whole_episodes_have_the_golden_losses(golden_dir: Path, fill: Fill) -> None:
    """The objectives put the right parts together, and all of it is differentiable."""
    rpt = [(RptObjective, "rpt", task, case) for _, _, task, case in rpt_cases(golden_dir) if "align_loss" in case]
    data = cases(load(golden_dir, "pami_full_head"))
    trained = [data[""] | case for case in data.values() if "align_loss" in case]
    pami = [(PamiObjective, "pami", region_task(floats(case["fts_down2"]), case), case) for case in trained]
    assert rpt and pami
    for kind, method, task, arrays in (*rpt, *pami):
        objective = kind(task.query.shape[1], faithful=True)
        fill(objective.head.block, method)
        features = torch.cat([task.support, task.query])
        objective.head.threshold = Given(features, floats(arrays["tao"])[:, 0])
        features.requires_grad_()
        found, terms = objective.episode(features[:1], task.masks, features[1:], task.labels)
        assert_close(found, arrays["prob"], 1e-4, f"{method} probability")
        expected = {"alignment": arrays["align_loss"], "query": likelihood_loss(floats(arrays["prob"]), task.labels).numpy()}
        if method == "rpt":
            expected |= {
                "ring": 0.1 * arrays["periphery_loss"],
                "agreement": 0.1 * arrays["mse_loss"],
                "self": arrays["qry_loss"],
            }
        else:
            expected |= {"agreement": arrays["mse_loss"], "coarse": arrays["qry_loss"]}
        assert set(terms) == set(expected) == set(objective.term_names)
        for name, value in expected.items():
            assert_close(terms[name], value, 1e-4, f"{method} {name}")
        sum(terms.values(), torch.zeros(())).backward()
        assert features.grad is not None and features.grad.isfinite().all() and features.grad.any()


# ---------------------------------------------------------------- QAMP


class Recorded:
    """Repeats the golden random draws, in our order of calls, and checks that every call is the golden one."""

    def __init__(self, data: Arrays, order: list[int]) -> None:
        self.data, self.order = data, order

    def __call__(self, available: int, wanted: int) -> list[int]:
        return drawn(available, wanted, self._sample)

    def _sample(self, available: int, wanted: int) -> list[int]:
        number = self.order.pop(0)
        picks = self.data[f"pick{number}"]
        assert (available, wanted) == (int(self.data[f"pick{number}_n"]), len(picks)), f"draw {number}"
        return picks.tolist()


def qamp_features(formula: ModuleType, seed: int, data: Arrays) -> Tensor:
    shape, channels = (2, 512, 64, 64), 512
    side = data["supp_mask"].shape[1] // shape[2]
    masks = torch.cat([floats(data["supp_mask"]), floats(data["query_label"])])
    direction = formula.ft(f"qampf{seed}/dir", (channels,))[None, :, None, None]
    features = formula.ft(f"qampf{seed}/noise", shape) + 1.3 * direction * F.avg_pool2d(masks, side)[:, None].numpy()
    found = floats(features)
    assert_close(found[:, ::64, ::16, ::16], data["fts_sample"], 1e-6, "features")
    np.testing.assert_allclose([found.double().sum(), found.double().abs().sum()], data["fts_checksum"], rtol=1e-6)
    return found


Decoded = tuple[Banks, Tensor, Tensor]


def spied(method: Qamp) -> list[Decoded]:
    """A list that gets the banks, the prior and the logits of every pass through the method."""
    passes: list[Decoded] = []
    decode = method.decode

    def spy(features: Tensor, banks: Banks, prior: Tensor) -> Tensor:
        logits = decode(features, banks, prior)
        passes.append((banks, prior, logits))
        return logits

    method.decode = spy  # type: ignore[method-assign]
    return passes


def check_passes(passes: list[Decoded], data: Arrays) -> None:
    """What the pass from support to query, and the swapped one, found on the way; some is stored with half precision."""
    assert len(passes) == 2
    prior = passes[0][1]
    wide = F.interpolate(prior.sigmoid()[:, None], data["supp_mask"].shape[1:], mode="bilinear", align_corners=True)[0, 0]
    assert_close(wide[:: len(wide) // len(data["prior_rows"])], data["prior_rows"], 1e-4, "prior")
    assert int((wide > 0.5).sum()) == int(data["prior_gt_half_count"])
    for number, (banks, _, logits) in enumerate(passes):
        for kind, bank, logit in (("fg", banks.organ, logits[:, 1]), ("bg", banks.background, logits[:, 0])):
            points = data[f"get_{kind}_pts{number}"]
            tolerance = 1e-4 if points.dtype == np.float32 else 2e-3
            assert_close(bank, points.astype(np.float32), tolerance, f"{kind} bank {number}")
            assert_close(logit, data[f"get_{kind}_sim{number}"], 1e-4, f"{kind} logits {number}")


@torch.no_grad()
def test_qamp(golden_dir: Path, formula: ModuleType, seed: int, fill: Fill) -> None:
    data = load(golden_dir, "qamp_full")
    features, masks = qamp_features(formula, seed, data), floats(data["supp_mask"])
    objective = QampObjective(features.shape[1], faithful=True, side=masks.shape[1])
    fill(objective.head, "qamp")
    objective.head.threshold = Given(features, floats(data["tao"])[:, 0])
    objective.method.pick = recorded = Recorded(data, [0, 2, 3, 4, 6, 7, 1, 5, 8, 10, 11, 12, 14, 15, 9, 13])
    passes = spied(objective.method)
    assert_close(objective.pixels.pool(features[:1], masks), data["proto_global"], 1e-4, "prototype")
    found, terms = objective.episode(features[:1], masks, features[1:], torch.from_numpy(data["query_label"]))
    assert not recorded.order
    check_passes(passes, data)
    organ = found[0, 1]
    assert_close(organ, data["prob_fg"].astype(np.float32), 2e-3, "probability")
    assert_close(organ[:: len(organ) // len(data["prob_fg_f32_rows"])], data["prob_fg_f32_rows"], 1e-4, "probability")
    weights = {"query": 1.0, "alignment": 1.0, "agreement": 0.3, "boundary": 0.8}
    losses = {"query": "query_loss", "alignment": "align_loss", "agreement": "aux_loss", "boundary": "boundary_loss"}
    for name, value in terms.items():
        assert_close(value / weights[name], data[losses[name]], 1e-4, name)
    assert_close(sum(terms.values(), torch.zeros(())), data["total_loss"], 1e-4, "total")
