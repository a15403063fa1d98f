"""What the page looks like: a bar above, the steps on the left, the views on the right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import html
from trame.widgets import vuetify3 as v

from FewShotSegLib.app.panel_draw import draw_panel
from FewShotSegLib.app.panel_results import results_panel
from FewShotSegLib.app.panel_scans import run_footer, scans_panel

if TYPE_CHECKING:
    from FewShotSegLib.app.session_page import SessionPage

SHORTCUTS = (
    ("P", "paint"),
    ("E", "erase"),
    ("T", "grey-value range"),
    ("V or Esc", "look only: drag for brightness, wheel for slices"),
    ("[ and ]", "smaller and larger brush"),
    ("Z and Y", "undo and redo (also with Ctrl)"),
    ("↑ and ↓", "next and previous slice"),
    ("N", "new organ"),
    ("Ctrl+Enter", "Apply"),
    ("1, 2, 3, 4", "arrangement of the views"),
    ("D", "dark or light"),
    ("?", "this list"),
)


def build(page: SessionPage) -> None:
    """Make the page of a session."""
    with VAppLayout(page.server, theme=("theme",), full_height=True) as layout:
        layout.root.classes = "fs-app"
        page.server.state.trame__title = "FewShotSeg"
        page.server.trigger("step")(page.viewer.step)
        _bar(page)
        with v.VNavigationDrawer(permanent=True, width=352, classes="fs-drawer"):
            with v.VExpansionPanels(
                v_model=("panel",), mandatory=True, variant="accordion", elevation=0, static=True, classes="fs-steps"
            ):
                draw_panel(page)
                scans_panel(page)
                results_panel(page)
            with v.Template(v_slot_append=True):
                run_footer(page)
        with v.VMain(classes="fs-main"):
            with html.Div(classes="fs-views", v_show="support || queries.length"):
                page.viewer.layouts.initialize_layout_grid(layout)
            _empty(page)
        _overlays(page)


def _bar(page: SessionPage) -> None:
    with v.VAppBar(height=48, elevation=0, classes="fs-bar"):
        html.Img(src="__fewshotseg/logo.svg", height=26, classes="ml-3 mr-2", alt="")
        html.Span("FewShotSeg", classes="fs-name")
        html.Span("Draw an organ once, segment it everywhere", classes="fs-motto")
        v.VSpacer()
        with v.VBtn(
            "Sample case",
            click=page.loading.sample,
            disabled=("busy || !!loading",),
            size="small",
            variant="tonal",
            classes="mr-3",
        ):
            v.VTooltip("Load two invented patients: one drawn, one to segment", activator="parent", location="bottom")
        with v.VBtnToggle(
            v_model=("layout",), mandatory=True, density="compact", variant="outlined", divided=True, classes="mr-2"
        ):
            for key, (name, icon, tip) in enumerate(
                (
                    ("one", "mdi-view-quilt-outline", "Axial and the others"),
                    ("four", "mdi-view-grid-outline", "Four views"),
                    ("slice", "mdi-square-outline", "Axial only"),
                    ("3d", "mdi-cube-outline", "3D and slices"),
                ),
                1,
            ):
                with v.VBtn(value=name, size="small", icon=True, raw_attrs=[f'aria-label="{tip}" data-key="{key}"']):
                    v.VIcon(icon, size=20)
                    v.VTooltip(f"{tip} ({key})", activator="parent", location="bottom")
        _icon_button("mdi-theme-light-dark", "Dark or light (D)", "theme = window.fewshot.turn(theme)", "d")
        _icon_button("mdi-keyboard-outline", "Keyboard shortcuts (?)", "help = true", "?")


def _icon_button(icon: str, tip: str, click: str, key: str) -> None:
    with v.VBtn(icon=True, size="small", click=click, raw_attrs=[f'aria-label="{tip}" data-key="{key}"']):
        v.VIcon(icon, size=20)
        v.VTooltip(tip, activator="parent", location="bottom")


def _empty(page: SessionPage) -> None:
    """What stands where the views will be, before any scan is loaded."""
    with html.Div(classes="fs-empty", v_show="!support && !queries.length"):
        html.Img(src="__fewshotseg/logo.svg", height=72, alt="")
        html.H2("Load a scan, or drop it here")
        html.P(
            "NIfTI, NRRD, MetaImage, or a zip of a DICOM series. "
            "Scans stay on this computer’s server: nothing is sent anywhere else."
        )
        with html.Div(classes="d-flex ga-3 mt-2 justify-center"):
            v.VBtn(
                "Choose a scan…",
                color="primary",
                prepend_icon="mdi-folder-open-outline",
                click="window.fewshot.choose('support')",
            )
            v.VBtn(
                "Try the sample case",
                variant="tonal",
                prepend_icon="mdi-account-outline",
                click=page.loading.sample,
                disabled=("!!loading",),
                id="sample",
            )
        with html.Div(classes="fs-how"):
            for number, (title, text) in enumerate(
                (
                    ("Draw", "Paint one organ on one slice, or load a drawing."),
                    ("Choose scans", "The rest of this scan, and any others."),
                    ("Apply", "See each organ, its volume, and how sure the result is."),
                ),
                1,
            ):
                with html.Div():
                    html.Span(str(number), classes="fs-number")
                    html.B(title)
                    html.Div(text)


def _overlays(page: SessionPage) -> None:
    with html.Div(classes="fs-drop"):
        html.Div("Drop here: the scan to draw on", raw_attrs=['data-drop="support"'])
        html.Div("Drop here: scans to segment", raw_attrs=['data-drop="query"'])
    with html.Div(classes="fs-loading", v_show="loading || uploading >= 0"):
        v.VProgressCircular(indeterminate=("uploading < 0 || uploading >= 100",), model_value=("uploading",), size=28, width=3)
        html.Span("{{ loading || ('Sending… ' + uploading + ' %') }}")
    with v.VSnackbar(
        v_model=("message_open",),
        timeout=("message_kind === 'error' ? -1 : 8000",),
        location="bottom end",
        multi_line=True,
        color=("message_kind === 'error' ? 'error' : undefined",),
        id="message",
    ):
        html.Div("{{ message }}", classes="fs-message", role="status")
        with v.Template(v_slot_actions=True):
            v.VBtn("Close", variant="text", click="message_open = false", size="small")
    with (
        v.VDialog(v_model=("help",), max_width=460),
        v.VCard(title="Keyboard shortcuts"),
        v.VCardText(),
        html.Table(classes="fs-keys"),
    ):
        for keys, text in SHORTCUTS:
            with html.Tr():
                with html.Td():
                    html.Kbd(keys)
                html.Td(text)
