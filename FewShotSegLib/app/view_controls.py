"""What lies on top of a view: its name, a slider through the slices, and a button that fits the view."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame.widgets.vuetify3 import VBtn, VIcon, VSlider, VTooltip
from trame_server import Server
from trame_slicer.app.logic.slice_view_logic import connect_slice_view_slider_to_state

TITLES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


def place_key(view: Any) -> str:
    """The variable of the state that says which slice a view shows; "" where that has no number."""
    return f"place_{view.get_singleton_tag()}"


def slice_controls(server: Server, view_id: str, view: Any) -> None:
    """Controls of a slice view."""
    slider = connect_slice_view_slider_to_state(server, view)
    server.state.setdefault(place_key(view), "")
    _title(TITLES.get(view.get_singleton_tag(), view_id), view, place_key(view))
    with html.Div(classes="fs-view-slider"):
        VSlider(
            v_model=(slider.name.value,),
            min=(slider.name.min_value,),
            max=(slider.name.max_value,),
            step=(slider.name.step,),
            hide_details=True,
            density="compact",
            theme="dark",
            thumb_size=12,
            track_size=2,
            raw_attrs=[f'aria-label="Slice" data-view-slider="{view.get_singleton_tag()}"'],
        )


def three_d_controls(server: Server, view_id: str, view: Any) -> None:
    """Controls of the 3D view."""
    _title("3D", view)
    html.Div("Results appear here", classes="fs-view-hint", v_show="!results.length")


def _title(text: str, view: Any, place: str = "") -> None:
    with html.Div(classes="fs-view-title"):
        html.Span(text)
        if place:
            html.Span(f"{{{{ {place} }}}}", classes="fs-view-place", v_show=place)
        with VBtn(
            icon=True, variant="text", size="x-small", theme="dark", click=view.reset_view, raw_attrs=[f'aria-label="Fit {text}"']
        ):
            VIcon("mdi-fit-to-screen-outline", size=16)
            VTooltip("Fit the scan into the view", activator="parent", location="bottom")
