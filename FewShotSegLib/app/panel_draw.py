"""Step 1 on the left: the example scan and the drawing on it; also the correction of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trame.widgets import html
from trame.widgets import vuetify3 as v

from FewShotSegLib.app.drawing import LARGEST_BRUSH_MM, SMALLEST_BRUSH_MM

if TYPE_CHECKING:
    from FewShotSegLib.app.session_page import SessionPage

TOOL_BUTTONS = (
    ("look", "mdi-cursor-default-outline", "Look (V)", "v"),
    ("paint", "mdi-brush", "Paint (P)", "p"),
    ("erase", "mdi-eraser", "Erase (E)", "e"),
    ("threshold", "mdi-contrast-circle", "Grey-value range (T)", "t"),
)
COMMON_ORGANS = ("liver", "right kidney", "left kidney", "spleen", "pancreas", "gallbladder", "aorta", "heart", "tumor")


def step_title(number: str, title: str, detail: str) -> None:
    """The heading of a step: its number, what to do, and how far it is."""
    with v.VExpansionPanelTitle(classes="fs-step"):
        html.Span(number, classes="fs-number")
        with html.Div(classes="fs-step-text"):
            html.B(title)
            html.Div(f"{{{{ {detail} }}}}", classes="fs-detail")


def draw_panel(page: SessionPage) -> None:
    """The whole step."""
    with v.VExpansionPanel(value="draw"):
        step_title("1", "Draw an example", "support ? support.name : 'No scan yet'")
        with v.VExpansionPanelText():
            _scan(page)
            with html.Div(v_show="support"):
                _which(page)
                _organs(page)
                _tools(page)
                _whole(page)


def _scan(page: SessionPage) -> None:
    with html.Div(classes="fs-row", v_show="support"), html.Div(classes="fs-grow"):
        html.Div("{{ support ? support.name : '' }}", classes="fs-scan-name")
        html.Div("{{ support ? support.info : '' }}", classes="fs-detail")
    with html.Div(classes="fs-row mb-2"):
        v.VBtn(
            "{{ support ? 'Another scan…' : 'Choose a scan…' }}",
            size="small",
            variant="tonal",
            prepend_icon="mdi-folder-open-outline",
            click="window.fewshot.choose('support')",
            disabled=("busy || !!loading",),
        )
        v.VBtn(
            "Load drawing…",
            size="small",
            variant="text",
            click="window.fewshot.choose('drawing')",
            v_show="support",
            disabled=("busy",),
        )


def _which(page: SessionPage) -> None:
    """A line that says when it is not the drawing that is edited."""
    with html.Div(classes="fs-correcting", v_show="editing && editing !== 'support'"):
        v.VIcon("mdi-pencil", size=16)
        html.Span("You are correcting a result", classes="fs-grow")
        v.VBtn("Back to the drawing", size="x-small", variant="outlined", click=(page.edit, "['support']"))


def _organs(page: SessionPage) -> None:
    with html.Div(classes="fs-label"):
        html.Span("Organs", classes="fs-grow")
        v.VBtn(
            "Clear",
            size="x-small",
            variant="text",
            click=page.clear_drawing,
            disabled=("busy",),
            v_show="organs.length && editing === 'support'",
            id="clear",
        )
    with html.Div(
        v_for="o in organs",
        key="o.id",
        classes=("['fs-organ', o.id === organ ? 'fs-chosen' : '']",),
        click="organ = o.id",
    ):
        html.Span(classes="fs-swatch", style=("{background: o.color}",))
        with html.Div(classes="fs-grow"):
            html.Input(
                value=("o.name",),
                change=(page.rename_organ, "[o.id, $event.target.value]"),
                classes="fs-organ-name",
                raw_attrs=['aria-label="Name of the organ"'],
                disabled=("busy",),
            )
            html.Div("{{ o.drawn }}", classes="fs-detail")
        with v.VBtn(
            icon=True,
            size="x-small",
            variant="text",
            click=(page.remove_organ, "[o.id]"),
            disabled=("busy",),
            raw_attrs=['aria-label="Remove"'],
        ):
            v.VIcon("mdi-close", size=16)
    html.Div(
        "No organ yet. Add one, then paint it: all of it, on at least one slice.", v_show="!organs.length", classes="fs-hint"
    )
    with html.Div(classes="fs-row mt-3"):
        v.VCombobox(
            v_model=("new_name",),
            items=("organ_names", list(COMMON_ORGANS)),
            density="compact",
            variant="outlined",
            hide_details=True,
            label="Organ",
            classes="fs-grow",
            id="new-name",
        )
        v.VBtn(
            "Add", click=page.add_organ, variant="tonal", disabled=("busy || !new_name",), id="add", raw_attrs=['data-key="n"']
        )


def _tools(page: SessionPage) -> None:
    with html.Div(v_show="organs.length"):
        html.Div("Tools", classes="fs-label mt-2")
        with html.Div(classes="fs-row"):
            with v.VBtnToggle(
                v_model=("tool",), mandatory=True, density="compact", variant="outlined", divided=True, color="primary"
            ):
                for value, icon, tip, key in TOOL_BUTTONS:
                    with v.VBtn(
                        value=value,
                        size="small",
                        disabled=("busy || shown !== editing",),
                        raw_attrs=[f'aria-label="{tip}" data-key="{key}"'],
                        id=f"tool-{value}",
                    ):
                        v.VIcon(icon, size=20)
                        v.VTooltip(tip, activator="parent", location="bottom")
            v.VSpacer()
            for name, icon, key, action, can in (
                ("Undo (Z)", "mdi-undo", "z", page.undo, "can_undo"),
                ("Redo (Y)", "mdi-redo", "y", page.redo, "can_redo"),
            ):
                with v.VBtn(
                    icon=True,
                    size="small",
                    variant="text",
                    click=action,
                    disabled=(f"busy || !{can}",),
                    raw_attrs=[f'aria-label="{name}" data-key="{key}"'],
                    id=icon[4:],
                ):
                    v.VIcon(icon, size=20)
                    v.VTooltip(name, activator="parent", location="bottom")
        with html.Div(classes="fs-row", v_show="tool === 'paint' || tool === 'erase'"):
            html.Span("Brush", classes="fs-small")
            v.VSlider(
                v_model=("brush",),
                min=SMALLEST_BRUSH_MM,
                max=LARGEST_BRUSH_MM,
                step=1,
                density="compact",
                hide_details=True,
                classes="fs-grow",
                raw_attrs=['aria-label="Brush"'],
            )
            html.Span("{{ Math.round(brush) }} mm", classes="fs-small fs-right")
            v.VBtn(click="brush = Math.max(2, brush - 2)", classes="d-none", raw_attrs=['data-key="["'])
            v.VBtn(click="brush = Math.min(80, brush + 2)", classes="d-none", raw_attrs=['data-key="]"'])
        _threshold(page)
        html.Div("You look at another scan than the one you draw on.", v_show="shown !== editing", classes="fs-hint")
        v.VBtn("Show it", size="x-small", variant="tonal", v_show="shown !== editing", click=(page.show, "[editing]"))


def _threshold(page: SessionPage) -> None:
    with html.Div(v_show="tool === 'threshold'"):
        v.VRangeSlider(
            v_model=("range",),
            min=("range_min",),
            max=("range_max",),
            step=("range_step",),
            density="compact",
            hide_details=True,
            raw_attrs=['aria-label="Grey values"'],
        )
        with html.Div(classes="fs-row"):
            html.Span("{{ Math.round(range[0]) }} to {{ Math.round(range[1]) }}", classes="fs-small fs-grow")
            v.VBtn("Fill on this slice", size="small", variant="tonal", click=page.fill_range, id="fill")
    v.VCheckbox(
        v_model=("limit_range",),
        label="Paint only in the grey-value range",
        density="compact",
        hide_details=True,
        v_show="tool !== 'look'",
    )


def _whole(page: SessionPage) -> None:
    with html.Div(v_show="editing === 'support' && organs.length", classes="mt-1"):
        v.VCheckbox(v_model=("drawn_whole",), label="Every slice of these organs is drawn", density="compact", hide_details=True)
        html.A("Save the drawing (.seg.nrrd)", href="download/drawing/seg.nrrd", classes="fs-link", raw_attrs=["download"])
