"""ADNet on volumes."""

from __future__ import annotations

import torch
from test_alpnet import disc, features_of

from FewShotSegLib.methods.adnet3d import Adnet3d, Adnet3dConfig
from FewShotSegLib.strategies.heads import HeadTask, Shot, direct

RADII = (0, 18, 30, 34, 30, 18, 0)
SUPPORT = torch.stack([disc((60, 64), r) if r else torch.zeros(128, 128) for r in RADII])
QUERY = torch.stack([disc((70, 56), r) if r else torch.zeros(128, 128) for r in RADII])


def shot(noise: float = 0.3) -> Shot:
    return Shot(features_of(SUPPORT, noise=noise), SUPPORT)


def test_every_voxel_of_the_organ_weighs_the_same() -> None:
    features = torch.tensor([1.0, 5.0])[:, None, None, None].expand(2, 1, 2, 2)
    masks = torch.zeros(2, 16, 16)
    masks[0, :8, :8], masks[1] = 1, 1
    torch.testing.assert_close(Adnet3d().remember(features, masks).prototype, torch.tensor([(1 + 4 * 5) / 5]))


def test_one_prototype_teaches_all_slices() -> None:
    method = Adnet3d()
    margins = direct(method, HeadTask([shot()], features_of(QUERY, noise=0.3, seed=1), (1, 5)))
    logits = method.score(features_of(QUERY, noise=0.3, seed=1), method.remember(shot().features, SUPPORT))
    torch.testing.assert_close(margins[1:6], (logits[:, 1] - logits[:, 0])[1:6])
    found = torch.nn.functional.interpolate(margins[:, None], (128, 128), mode="bilinear")[:, 0] > 0
    assert 2 * (found * QUERY).sum() / (found.sum() + QUERY.sum()) > 0.9


def test_several_volumes_are_averaged() -> None:
    method = Adnet3d()
    one, two = (method.remember(features_of(masks, noise=0.3), masks) for masks in (SUPPORT, QUERY))
    both = method.average([one, two])
    torch.testing.assert_close(both.prototype, (one.prototype + two.prototype) / 2)
    torch.testing.assert_close(both.threshold, (one.threshold + two.threshold) / 2)


def test_faithful_takes_the_nearest_pixel_for_a_cell() -> None:
    masks = torch.zeros(1, 16, 16)
    masks[:, 1:9, 1:9] = 1  # its first pixel of every cell lies in the organ in the second row and column only
    published = Adnet3d(Adnet3dConfig(faithful=True)).cells(masks, (2, 2))
    assert published.tolist() == [[[0, 0], [0, 1]]]
    assert Adnet3d().cells(masks, (2, 2))[0, 0, 0] > 0.7
