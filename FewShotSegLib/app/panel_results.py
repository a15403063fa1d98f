"""Step 3 on the left: what was found, how sure it is, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trame.widgets import html
from trame.widgets import vuetify3 as v

from FewShotSegLib.app.panel_draw import step_title

if TYPE_CHECKING:
    from FewShotSegLib.app.session_page import SessionPage


SAVED = ["download"]
"""A link without this leaves the page, which closes the session."""


def results_panel(page: SessionPage) -> None:
    """The whole step."""
    with v.VExpansionPanel(value="results"):
        step_title(
            "3",
            "Look at the results",
            "results.length ? results.length + (results.length > 1 ? ' scans segmented' : ' scan segmented') : 'Nothing yet'",
        )
        with v.VExpansionPanelText():
            html.Div(
                "Press Apply below: each organ appears here with its volume and how sure the result is.",
                v_show="!results.length",
                classes="fs-hint",
            )
            with html.Div(
                v_for="r in results",
                key="r.id",
                classes=("['fs-result', r.id === shown ? 'fs-chosen' : '']",),
                raw_attrs=["data-result"],
            ):
                with html.Div(classes="fs-row", click=(page.show, "[r.id]"), style="cursor: pointer"):
                    html.Div("{{ r.name }}", classes="fs-scan-name fs-grow")
                    html.Span("{{ r.seconds }}", classes="fs-detail")
                _organs(page)
                with html.Div(v_for="note in r.notes", key="note", classes="fs-note"):
                    html.Span("{{ note }}")
                _actions(page)


def _organs(page: SessionPage) -> None:
    with html.Div(v_for="o in r.organs", key="o.name", classes="fs-found", raw_attrs=["data-organ"]):
        with html.Div(classes="fs-row"):
            html.Span(classes="fs-swatch", style=("{background: o.color}",))
            html.Span("{{ o.name }}", classes="fs-grow")
            html.Span("{{ o.ml }}", classes="fs-small")
            html.Span("{{ o.level === 'absent' ? '–' : o.percent + ' %' }}", classes="fs-percent")
        with html.Div(classes="fs-bar-back"):
            html.Div(classes=("'fs-bar-fill fs-' + o.level",), style=("{width: o.percent + '%'}",))
        with html.Div(classes="fs-detail", v_show="o.level !== 'good' || o.look.length"):
            html.Span("{{ o.level === 'good' ? 'look at slice' : o.hint + (o.look.length ? ', slice' : '') }}")
            html.A(
                "{{ k.text }}", v_for="k in o.look", key="k.slice", classes="fs-slice", click=(page.look_at, "[r.id, k.slice]")
            )


def _actions(page: SessionPage) -> None:
    with html.Div(classes="fs-row fs-actions"):
        with v.VBtn(
            "Correct",
            size="x-small",
            variant="tonal",
            click=(page.edit, "[r.id]"),
            disabled=("busy",),
            v_show="editing !== r.id",
            raw_attrs=["data-correct"],
        ):
            v.VTooltip("Paint or erase on this result, with the tools of step 1", activator="parent", location="bottom")
        with v.VBtn(
            "Run again",
            size="x-small",
            color="primary",
            click=(page.running.again, "[r.id]"),
            disabled=("busy",),
            v_show="editing === r.id",
            raw_attrs=["data-again"],
        ):
            v.VTooltip("The slices that you corrected teach the rest of this scan", activator="parent", location="bottom")
        with v.VBtn(
            "Use as example", size="x-small", variant="tonal", click=(page.running.use_as_example, "[r.id]"), disabled=("busy",)
        ):
            v.VTooltip("This scan, as it is now, becomes the drawing for other scans", activator="parent", location="bottom")
        with v.VMenu():
            with (
                v.Template(v_slot_activator="{ props }"),
                v.VBtn(
                    "Download",
                    v_bind="props",
                    size="x-small",
                    variant="tonal",
                    append_icon="mdi-menu-down",
                    raw_attrs=["data-download"],
                ),
            ):
                pass
            with v.VList(density="compact"):
                v.VListItem(
                    title="Slicer segmentation (.seg.nrrd)",
                    href=("'download/' + r.id + '/seg.nrrd'",),
                    raw_attrs=['data-kind="seg.nrrd"', *SAVED],
                )
                v.VListItem(
                    title="Label map (.nii.gz)",
                    href=("'download/' + r.id + '/nii.gz'",),
                    raw_attrs=['data-kind="nii.gz"', *SAVED],
                )
                v.VListItem(
                    title="DICOM SEG (.dcm)",
                    subtitle=("r.dicom ? undefined : 'for scans loaded as DICOM'",),
                    href=("'download/' + r.id + '/dcm'",),
                    disabled=("!r.dicom",),
                    raw_attrs=['data-kind="dcm"', *SAVED],
                )
