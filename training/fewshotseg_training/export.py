"""From a finished training run to a checkpoint with its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from fewshotseg_training.objectives import create_objective
from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import load_checkpoint, save_checkpoint
from FewShotSegLib.encoders import Encoder, create_encoder
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.methods import list_methods

SETTINGS = (
    "steps", "pairs", "lr", "momentum", "weight_decay", "clip", "reach_mm", "seed", "augment",
    "method", "base", "freeze_encoder", "source", "exclude", "exclude_rule", "schedule", "ema", "optimiser",
    "labelled", "labels_of", "keep_base",
)  # fmt: skip
LARGEST = 20e6  # bytes


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
    encoder_from: str = "",
) -> Path:
    """Write `<name>.safetensors` (fp16) and its card from the folder of a finished run; returns the weights' file.

    `data_licences` names the licence of every data set by its folder name. `results` are the card's records of what was
    measured. The data sets of the base that the run started from are the card's, too, and its licence, unless one is given
    (`licence` other than "" and "unknown"). With `encoder_from`, the name of a checkpoint, or its file in `folder`, the run's
    frozen encoder stays there and the new checkpoint holds the head only. Paths of the training machine do not go into the card.

    Raises:
        CheckpointError: the run is not finished, its base cannot be found, its encoder is not that of `encoder_from`, or the
            file would be larger than 20 MB.
    """
    config = _finished(run)
    head = _head(run, config)
    seen, inherited = _ancestry(config, data_licences)
    card = Card(
        name=name,
        description=description,
        methods=list_methods() if head is None else [config["method"]],
        modalities=modalities,
        training_data=list(seen.values()),
        licence=licence if licence not in ("", "unknown") else inherited or "unknown",
        results=results,
        method="" if head is None else config["method"],
        options={} if head is None else dict(config["options"]),
        encoder_from=Path(encoder_from).name.removesuffix(".safetensors"),
        extra={"objective": config.get("method", "carry"), **{key: _told(config[key]) for key in SETTINGS if key in config}},
    )
    path = save_checkpoint(_encoder(run, config), card, folder, head=head)
    if path.stat().st_size > LARGEST:
        size = path.stat().st_size / 1e6
        path.unlink()
        path.with_suffix(".json").unlink()
        raise CheckpointError(
            f"The checkpoint {name} has {size:.1f} MB", "at most 20 MB", "freeze the encoder and export with --encoder-from"
        )
    return path


def _finished(run: Path) -> dict[str, Any]:
    try:
        config = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{run} is no folder of a run ({error})", "run.json in it", "give the --out of a fit") from error
    if not (run / "encoder.safetensors").exists():
        raise CheckpointError(f"The run in {run} is not finished", "encoder.safetensors in it", "run the same fit again")
    return config


def _ancestry(config: Mapping[str, Any], licences: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], str]:
    """Every data set that the weights have seen, by name, and the licence of the checkpoint they started from ("" = none)."""
    seen: dict[str, dict[str, Any]] = {}
    licence = ""
    base = Path(config.get("base", ""))
    if base.name == "encoder.safetensors":
        seen, licence = _ancestry(_finished(base.parent), licences)
    elif base.name:
        card = load_checkpoint(config["base"])[1]
        seen, licence = {data["name"]: data for data in card.training_data}, card.licence
    for files in config["data"]:
        name = Path(files[0]).parent.name
        scans = max(len(files), seen.get(name, {}).get("scans", 0))
        seen[name] = {"licence": "unknown", **seen.get(name, {}), "name": name, "scans": scans}
        if name in licences:
            seen[name]["licence"] = licences[name]
    return seen, licence


def _encoder(run: Path, config: Mapping[str, Any]) -> Encoder:
    encoder = create_encoder(config["encoder"], channels=config["channels"])
    encoder.load_state_dict(load_file(run / "encoder.safetensors"))
    return encoder


def _head(run: Path, config: Mapping[str, Any]) -> nn.Module | None:
    """The learned head, or None for a run that learned only the encoder."""
    path = run / "head.safetensors"
    if not path.exists():
        return None
    head = create_objective(config["method"], channels=config["channels"], **dict(config["options"])).head
    head.load_state_dict(load_file(path))
    return head


def _told(value: Any) -> Any:
    """A setting without the folders of the training machine."""
    return Path(value).name if isinstance(value, str) and "/" in value else value
