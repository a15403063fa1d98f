"""The checkpoints on this computer and their licences, read from their cards without importing torch."""

import functools
import logging
from pathlib import Path

from slicer.i18n import tr as _


def list_cards():
    """Cards by name: those that ship with the extension first, then those in the user's cache."""
    from FewShotSegLib.cards import Card
    from FewShotSegLib.errors import FewShotSegError

    cards = {}
    for path in _card_files():
        try:
            card = Card.read(path)
        except FewShotSegError as error:
            logging.warning(str(error))
            continue
        cards.setdefault(card.name, card)
    return cards


def _card_files():
    from FewShotSegLib.resources import resource_dir

    files = sorted(resource_dir("checkpoints").glob("*.json"))
    try:
        from FewShotSegLib.download import default_cache_dir

        cached = sorted((default_cache_dir() / "checkpoints").rglob("*.json"))
    except ImportError:  # its packages are not installed yet, so nothing was downloaded
        cached = []
    return [path for path in [*files, *cached] if path.name != "index.json" and not path.name.startswith(".")]


@functools.lru_cache(maxsize=8)
def own_card(path):
    """The card beside a checkpoint file that the user chose; None when there is none or it cannot be read."""
    from FewShotSegLib.cards import Card
    from FewShotSegLib.errors import FewShotSegError

    try:
        return Card.read(Path(path).with_suffix(".json"))
    except FewShotSegError:
        return None


def usable_methods(cards, names):
    """Those of the method names that some of the cards serve: one with a learned head its method alone, one that names no
    method all of them.
    """
    served = [[card.method] if card.method else card.methods for card in cards]
    return [name for name in names if any(not one or name in one for one in served)]


def licence_text(card):
    """What the panel says about a checkpoint; licence first, because it may forbid what the user wants to do."""
    if card is None:
        return _("This file has no card beside it: its licence is not known.")
    lines = [_("Licence: {licence}").format(licence=card.licence or _("not told by its card"))]
    if card.modalities:
        lines.append(_("Trained on {modalities}.").format(modalities=", ".join(card.modalities)))
    if card.methods:
        lines.append(_("For the methods {methods}.").format(methods=", ".join(card.methods)))
    return " ".join(lines)
