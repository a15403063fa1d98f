"""From a finished training run to a checkpoint with its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import save_checkpoint
from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.methods import list_methods

SETTINGS = ("steps", "pairs", "lr", "momentum", "weight_decay", "clip", "reach_mm", "seed", "augment")


def export_run(
    run: Path,
    folder: Path,
    *,
    name: str,
    description: str,
    modalities: list[str],
    licence: str,
    data_licences: Mapping[str, str],
    results: list[dict[str, Any]],
) -> Path:
    """Write `<name>.safetensors` (fp16) and its card from the folder of a finished run; returns the weights' file.

    `data_licences` names the licence of every data set by its folder name. `results` are the card's records of what was
    measured. Paths of the training machine do not go into the card.
    """
    config = json.loads((run / "run.json").read_text())
    encoder = create_encoder(config["encoder"], channels=config["channels"])
    encoder.load_state_dict(load_file(run / "encoder.safetensors"))
    sets = {Path(files[0]).parent.name: len(files) for files in config["data"]}
    card = Card(
        name=name,
        description=description,
        encoder=config["encoder"],
        channels=config["channels"],
        methods=list_methods(),
        modalities=modalities,
        training_data=[{"name": s, "licence": data_licences.get(s, "unknown"), "scans": n} for s, n in sets.items()],
        licence=licence,
        results=results,
        extra={"objective": "carry", **{key: config[key] for key in SETTINGS}},
    )
    return save_checkpoint(encoder, card, folder)
