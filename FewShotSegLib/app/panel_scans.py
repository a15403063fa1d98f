"""Step 2 on the left, the scans to segment, and the foot with method and Apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trame.widgets import html
from trame.widgets import vuetify3 as v

from FewShotSegLib.app.panel_draw import step_title

if TYPE_CHECKING:
    from FewShotSegLib.app.session_page import SessionPage


def scans_panel(page: SessionPage) -> None:
    """The whole step."""
    new = "queries.length ? queries.length + (queries.length > 1 ? ' scans' : ' scan') : ''"
    detail = f"[own_scan && support ? 'the rest of this scan' : '', {new}].filter(Boolean).join(' + ') || 'Nothing chosen'"
    with v.VExpansionPanel(value="scans"):
        step_title("2", "Choose scans to segment", detail)
        with v.VExpansionPanelText():
            v.VCheckbox(
                v_model=("own_scan",),
                label="The rest of the scan that is drawn on",
                density="compact",
                hide_details=True,
                disabled=("drawn_whole || busy",),
                id="own",
            )
            with html.Div(
                v_for="q in queries",
                key="q.id",
                classes=("['fs-organ', q.id === shown ? 'fs-chosen' : '']",),
                click=(page.show, "[q.id]"),
            ):
                v.VIcon("mdi-file-image-outline", size=18)
                with html.Div(classes="fs-grow"):
                    html.Div("{{ q.name }}", classes="fs-scan-name")
                    html.Div("{{ q.info }}", classes="fs-detail")
                with v.VBtn(
                    icon=True,
                    size="x-small",
                    variant="text",
                    disabled=("busy",),
                    raw_attrs=['aria-label="Remove"', "@click.stop=\"trigger('remove_query', [q.id])\""],
                ):
                    v.VIcon("mdi-close", size=16)
            html.Div(
                "No other scan yet: add one or several, of the same kind (MR or CT) as the drawing.",
                v_show="!queries.length",
                classes="fs-hint",
            )
            v.VBtn(
                "Add scans…",
                size="small",
                variant="tonal",
                prepend_icon="mdi-plus",
                click="window.fewshot.choose('query')",
                disabled=("busy || !!loading",),
                classes="mt-2",
            )
    page.server.trigger("remove_query")(page.loading.remove_query)


def run_footer(page: SessionPage) -> None:
    """Method and strategy, Apply and Cancel, progress; always in sight."""
    with html.Div(classes="fs-foot"):
        with html.Div(classes="fs-row"):
            v.VSelect(
                v_model=("method",),
                items=("methods",),
                label="Method",
                density="compact",
                variant="outlined",
                hide_details=True,
                classes="fs-grow",
                disabled=("busy",),
                id="method",
            )
            v.VSelect(
                v_model=("strategy",),
                items=("strategies",),
                label="Strategy",
                density="compact",
                variant="outlined",
                hide_details=True,
                classes="fs-strategy",
                disabled=("busy",),
                v_show="method !== 'match'",
            )
        with html.Div(classes="fs-row mt-2"):
            v.VBtn(
                "Apply",
                color="primary",
                classes="fs-grow",
                click=page.running.apply,
                disabled=("busy || !!why || !!loading",),
                id="apply",
                raw_attrs=['data-key="Ctrl+Enter"'],
            )
            v.VBtn("Cancel", variant="outlined", click=page.running.cancel, disabled=("!busy",), id="cancel")
        html.Div("{{ why }}", v_show="why && !busy", classes="fs-hint mt-1", id="why")
        with html.Div(v_show="busy", classes="mt-2"):
            v.VProgressLinear(
                model_value=("progress",), height=6, color="primary", rounded=True, indeterminate=("progress < 1",), id="progress"
            )
            html.Div("{{ stage }}", classes="fs-detail mt-1", id="stage")
            again = "Unsure, looked at once more at the end: {{ waiting.join(', ') }}"
            html.Div(again, v_show="waiting.length", classes="fs-hint mt-1", id="waiting")
