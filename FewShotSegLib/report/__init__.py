"""Results for people to look at: a contact sheet of one scan and an HTML page about one or many.

`slices` which slices to show and how grey they are, `colors` organ colours that can be told apart, `sheet` the picture, `hints`
confidence in plain words, `page` the HTML. `sheet` and `page` load torch: here they are imported when they are asked for, so
that `hints` and `colors` come without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from FewShotSegLib.report.page import ReportJob, picture_name, write_report
    from FewShotSegLib.report.sheet import contact_sheet, film_strip, write_contact_sheet

__all__ = ["ReportJob", "contact_sheet", "film_strip", "picture_name", "write_contact_sheet", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'sheet' if 'sheet' in name or name == 'film_strip' else 'page'}"), name)
