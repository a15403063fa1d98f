"""From draws to batches of episodes: pixels gathered, regions carried by flow, both sides changed as the papers do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.sampling import Draw, Sampler
from fewshotseg_training.transforms import PaperAugment, apply_gamma, draw_changes, move
from FewShotSegLib.flow import FlowNetwork, compose, warp_masks


class EpisodeSource:
    """Batches of episodes from a sampler; `flow` is needed for realistic ones."""

    def __init__(self, sampler: Sampler, augment: PaperAugment, device: torch.device, flow: FlowNetwork | None = None) -> None:
        self.sampler, self.augment, self.device, self.flow = sampler, augment, device, flow

    def batch(self, rngs: Sequence[np.random.Generator]) -> Episodes:
        """One episode for each generator, on the device."""
        draws = [self.sampler.draw(rng) for rng in rngs]
        episodes = gather(draws).to(self.device)
        if episodes.realistic.any():
            episodes = self._carried(episodes, draws)
        return changed(episodes, self.sampler.recipe, self.augment, rngs)

    def _carried(self, episodes: Episodes, draws: Sequence[Draw]) -> Episodes:
        """Realistic episodes with the support's region carried to the queries by the flow."""
        if self.flow is None:
            raise ValueError("Realistic episodes need a flow network")
        masks = episodes.query_masks.clone()
        for i in torch.nonzero(episodes.realistic).flatten().tolist():
            masks[i] = carry_region(self.flow, draws[i], episodes.support_masks[i, 0])
        return Episodes(episodes.support, episodes.support_masks, episodes.query, masks, episodes.realistic)


def gather(draws: Sequence[Draw]) -> Episodes:
    """Pixels and masks of the drawn slices; the masks of realistic queries are still those of the support's slice ids."""
    sides = []
    for side in ("support", "query"):
        grey = [d.scan.grey(getattr(d, side)) for d in draws]
        masks = [d.scan.layer(d.kind)[list(getattr(d, side))] == d.id for d in draws]
        sides += [torch.from_numpy(np.stack(grey)), torch.from_numpy(np.stack(masks)).float()]
    support, support_masks, query, query_masks = sides
    return Episodes(support, support_masks, query, query_masks, torch.tensor([d.realistic for d in draws]))


@torch.no_grad()
def carry_region(flow: FlowNetwork, draw: Draw, mask: Tensor) -> Tensor:
    """The support's mask (H W) on every query slice (q H W): flows from slice to slice, composed, rounded once (VISA)."""
    device, start = mask.device, draw.support[0]
    found = {}
    for direction in (-1, 1):
        wanted = [z for z in draw.query if (z - start) * direction > 0]
        path = list(range(start, max(wanted, key=lambda z: abs(z - start), default=start) + direction, direction))
        if len(path) < 2:
            continue
        grey = torch.from_numpy(draw.scan.grey(path)).to(device)
        steps = flow(grey[:-1], grey[1:]).split(1)
        for z in wanted:
            found[z] = warp_masks(mask[None], reduce(compose, steps[: abs(z - start)]))[0]
    return torch.stack([found[z] for z in draw.query])


def changed(episodes: Episodes, recipe: Recipe, augment: PaperAugment, rngs: Sequence[np.random.Generator]) -> Episodes:
    """Episodes with their sides transformed as the recipe says; realistic ones stay as they are."""
    if recipe.transformed == "none" or episodes.realistic.all():
        return episodes
    size = (episodes.support.shape[-2], episodes.support.shape[-1])
    wanted = np.ones((len(rngs), 4), bool)  # geometry of support, of query; gamma of support, of query
    if recipe.transformed == "one":
        lots = np.stack([rng.random(2) < 0.5 for rng in rngs])
        wanted = np.stack([lots[:, 0], ~lots[:, 0], lots[:, 1], ~lots[:, 1]], 1)
    allowed = torch.from_numpy(wanted).to(episodes.support.device) & ~episodes.realistic[:, None]
    sides = []
    for at, (images, masks) in enumerate(((episodes.support, episodes.support_masks), (episodes.query, episodes.query_masks))):
        change = draw_changes(augment, size, rngs)
        geometry, gamma = allowed[:, at, None, None, None], allowed[:, 2 + at, None, None, None]
        if geometry.any():
            moved, moved_masks = move(images, masks, change, augment)
            images, masks = torch.where(geometry, moved, images), torch.where(geometry, moved_masks, masks)
        images = torch.where(gamma, apply_gamma(images, change.gamma.to(images.device)), images)
        sides += [images, masks]
    support, support_masks, query, query_masks = sides
    return Episodes(support, support_masks, query, query_masks, episodes.realistic)
