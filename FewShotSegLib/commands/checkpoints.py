"""`fewshotseg checkpoints`: which trained encoders there are, and what was measured with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from FewShotSegLib.commands.console import stdout

if TYPE_CHECKING:
    from FewShotSegLib.cards import Card


def checkpoints() -> None:
    """List the trained encoders on this computer and those that can be downloaded."""
    from rich.table import Table

    from FewShotSegLib.checkpoints import list_checkpoints, list_downloadable
    from FewShotSegLib.segmenter import DEFAULT_CHECKPOINT

    here = list_checkpoints()
    names = {card.name for card in here}
    table = Table("checkpoint", "where", "what it is", "licence", "measured", show_lines=True)
    for card, where in [
        *((card, "here") for card in here),
        *((card, "download") for card in list_downloadable() if card.name not in names),
    ]:
        name = f"{card.name} (default)" if card.name == DEFAULT_CHECKPOINT else card.name
        table.add_row(name, where, f"{card.description}\n{', '.join(card.modalities)}".strip(), card.licence, measured(card))
    stdout().print(table if table.row_count else "No checkpoint is installed.")


def measured(card: Card) -> str:
    """The results of a card, a line each."""
    return "\n".join(
        f"{r['dataset']}, {r['protocol']}, {r['method']}: {r['mean_dice']:.1f} {r['note']}".strip() for r in card.results
    )
