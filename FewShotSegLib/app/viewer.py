"""The scene of a session and its slice and 3D views, with trame-slicer's components."""

from __future__ import annotations

from typing import Any

from trame_server import Server
from trame_slicer.core import LayoutManager, SlicerApp
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition
from vtkmodules.vtkCommonCore import vtkCommand, vtkLogger, vtkObject

from FewShotSegLib.app.view_controls import place_key, slice_controls, three_d_controls

LAYOUTS = {"one": "Axial Primary", "four": "Quad View", "slice": "Axial Only", "3d": "3D Primary"}
START_LAYOUT = "one"
SURFACE_SMOOTHING = "0.5"


class Viewer:
    """One scene, its views, and what they show: one scan with the segmentations that belong to it."""

    def __init__(self, server: Server) -> None:
        self.state = server.state
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_ERROR)  # no display and no window manager: VTK need not say so
        vtkObject.GlobalWarningDisplayOff()
        self.slicer = SlicerApp()
        self.scene = self.slicer.scene
        register_rca_factories(
            self.slicer.view_manager,
            server,
            slice_view_ui_f=slice_controls,
            three_d_view_ui_f=three_d_controls,
            interactive_quality=70,
            target_fps=20,
        )
        self.layouts = LayoutManager(self.scene, self.slicer.view_manager, server)
        self.layouts.register_layout_dict(_layouts())
        self.layouts.set_layout(LAYOUTS[START_LAYOUT])
        self._spare_the_processor()
        for view in self.slice_views():
            view.interactor().AddObserver(vtkCommand.WindowResizeEvent, lambda *_, view=view: self._refit(view))
            view.modified.connect(self._tell_place)
        self.shown: Any = None

    def _spare_the_processor(self) -> None:
        """Most servers draw without a graphics card: no smoothing by eightfold drawing, no transparency in layers."""
        for view in self.slicer.view_manager.get_views():
            view.render_window().SetMultiSamples(0)
        for view in self.slicer.view_manager.get_threed_views():
            view.renderer().SetUseDepthPeeling(False)
            view.renderer().SetUseDepthPeelingForVolumes(False)

    def _refit(self, view: Any) -> None:
        """Fit the scan into a view that has got another size (its first one too), at the slice that it shows."""
        if self.shown is not None:
            place = view.get_slice_value()
            view.fit_view_to_content()
            view.set_slice_value(place)

    def _tell_place(self, view: Any) -> None:
        """Write the number of the slice, counted from 1, beside the name of the view that shows the scan's own slices."""
        number = self.slice_number() if self.shown is not None and view is self.drawing_view() else None
        count = self.shown.GetImageData().GetDimensions()[2] if number is not None else 0
        self.state[place_key(view)] = "" if number is None else f"{number + 1} / {count}"

    def choose_layout(self, name: str) -> None:
        """Arrange the views; `name` is a key of `LAYOUTS`."""
        self.layouts.set_layout(LAYOUTS[name])

    def show(self, volume: Any, segmentations: list[Any]) -> None:
        """Show this scan with these segmentations and no others; the views are fitted when the scan is another one."""
        for node in self.scene.GetNodesByClass("vtkMRMLSegmentationNode"):
            node.SetDisplayVisibility(node in segmentations)
        if volume is self.shown:
            return
        self.shown = volume
        for view in self.slice_views():
            view.set_background_volume_id(volume.GetID() if volume else None)
        self.slicer.display_manager.reset_views()

    def surfaces(self, segmentation: Any) -> None:
        """Make or renew the surfaces that the 3D view shows: 0.2 s for four organs of the sample case."""
        segmentation.GetSegmentation().SetConversionParameter("Smoothing factor", SURFACE_SMOOTHING)
        segmentation.RemoveClosedSurfaceRepresentation()
        segmentation.CreateClosedSurfaceRepresentation()
        for view in self.slicer.view_manager.get_threed_views():
            view.fit_view_to_content()
            view.schedule_render()

    def go_to(self, slice_number: int) -> None:
        """Move the view that shows the scan's own slices to one of them (first = 0)."""
        view = self.drawing_view()
        if view is not None:
            x, y, _ = self.shown.GetImageData().GetDimensions()
            place = _matrix(self.shown).MultiplyPoint((x / 2, y / 2, float(slice_number), 1.0))
            view.get_view_node().JumpSliceByOffsetting(*place[:3])

    def slice_number(self) -> int | None:
        """Which of the scan's own slices the main view shows (first = 0); None when it shows none."""
        view = self.drawing_view()
        if view is None:
            return None
        inverse, across = _matrix(self.shown), view.get_view_node().GetSliceToRAS()
        inverse.Invert()
        place = inverse.MultiplyPoint(tuple(across.GetElement(row, 3) for row in range(3)) + (1.0,))
        number = round(place[2])
        return number if 0 <= number < self.shown.GetImageData().GetDimensions()[2] else None

    def step(self, count: int) -> None:
        """Move the main slice view by some slices."""
        view = self.drawing_view()
        if view is not None and self.shown is not None:
            low, high = view.get_slice_range()
            view.set_slice_value(min(max(view.get_slice_value() + count * view.get_slice_step(), low), high))

    def drawing_view(self) -> Any:
        """The slice view that lies most along the scan's own slices; None before a scan is shown."""
        if self.shown is None:
            return None
        matrix = _matrix(self.shown)
        normal = [matrix.GetElement(row, 2) for row in range(3)]
        return max(self.slice_views(), key=lambda view: abs(_along(view, normal)))

    def slice_views(self) -> list[Any]:
        """The three slice views."""
        return self.slicer.view_manager.get_slice_views()


def _matrix(volume: Any) -> Any:
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def _along(view: Any, direction: list[float]) -> float:
    across = view.get_view_node().GetSliceToRAS()
    return sum(across.GetElement(row, 2) * direction[row] for row in range(3))


def _layouts() -> dict[str, Layout]:
    """Slicer's arrangements by the names of `LAYOUTS`, the main view twice as wide as the others."""
    axial, coronal = ViewLayoutDefinition.axial_view(), ViewLayoutDefinition.coronal_view()
    sagittal, solid = ViewLayoutDefinition.sagittal_view(), ViewLayoutDefinition.threed_view()
    across, down = LayoutDirection.Horizontal, LayoutDirection.Vertical
    return {
        "Axial Primary": Layout(across, [axial, Layout(down, [solid, coronal, sagittal])], ["2", "1"]),
        "Quad View": Layout(across, [Layout(down, [axial, coronal]), Layout(down, [solid, sagittal])]),
        "Axial Only": Layout(down, [axial]),
        "3D Primary": Layout(across, [solid, Layout(down, [axial, coronal, sagittal])], ["2", "1"]),
    }
