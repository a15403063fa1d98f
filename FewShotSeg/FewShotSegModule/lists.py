"""The two lists of the panel: segments to tick, and results."""

import qt

from FewShotSegModule import results
from FewShotSegModule.plan import is_drawn

SWATCH = 12  # pixels


class SegmentList:
    """The segments of the drawing, each with a tick and its colour.

    Args:
        widget: QListWidget.
        changed: called with the IDs that are not ticked, when the user ticks.
    """

    def __init__(self, widget, changed):
        self._widget, self._changed = widget, changed
        self._shown, self._filling = [], False
        widget.connect("itemChanged(QListWidgetItem*)", self._on_item)

    def show(self, node, excluded):
        """Show the segments of a node, or none; fills the list anew only when something differs."""
        shown = _described(node, set(excluded))
        if shown == self._shown:
            return
        self._shown, self._filling = shown, True
        try:
            self._widget.clear()
            for _name, text, color, ticked in shown:
                self._widget.addItem(_item(text, color, ticked))
        finally:
            self._filling = False

    def _on_item(self, _item):
        if self._filling:
            return
        ticks = [self._widget.item(row).checkState() == qt.Qt.Checked for row in range(len(self._shown))]
        self._shown = [(*entry[:3], tick) for entry, tick in zip(self._shown, ticks, strict=True)]
        self._changed([entry[0] for entry in self._shown if not entry[3]])


def _described(node, excluded):
    """(ID, text, colour, ticked) of each segment."""
    if node is None:
        return []
    segmentation = node.GetSegmentation()
    found = []
    for name in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(name)
        text = segment.GetName() if is_drawn(node, name) else f"{segment.GetName()}  —  ∅"
        found.append((name, text, tuple(segment.GetColor()), name not in excluded))
    return found


def _item(text, color, ticked):
    item = qt.QListWidgetItem(text)
    swatch = qt.QPixmap(SWATCH, SWATCH)
    swatch.fill(qt.QColor(*(int(255 * part) for part in color)))
    item.setIcon(qt.QIcon(swatch))
    item.setFlags(item.flags() | qt.Qt.ItemIsUserCheckable)
    item.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
    return item


class ResultList:
    """Every organ of every result, the least sure first; what needs a look is marked, in words and in colour.

    Args:
        widget: QTableWidget with four columns.
        chosen: called with a `results.Row` when the user clicks one.
    """

    LOW = (255, 224, 178)

    def __init__(self, widget, chosen):
        self._widget, self._chosen, self.rows = widget, chosen, []
        widget.horizontalHeader().setStretchLastSection(True)
        widget.verticalHeader().hide()
        widget.connect("cellClicked(int,int)", self._on_click)

    def show(self, scene):
        """Read the results of a scene anew."""
        selected = self.selected
        self.rows = results.rows(scene) if scene is not None else []
        self._widget.setRowCount(len(self.rows))
        for number, row in enumerate(self.rows):
            for column, text in enumerate((row.percent, row.organ, row.scan, row.hint)):
                cell = qt.QTableWidgetItem(text)
                if row.is_low:
                    cell.setBackground(qt.QBrush(qt.QColor(*self.LOW)))
                    cell.setForeground(qt.QBrush(qt.QColor(0, 0, 0)))
                self._widget.setItem(number, column, cell)
        self._widget.resizeColumnsToContents()
        self._select(selected)

    def _select(self, wanted):
        """Select the row of the same organ of the same result, or none."""
        for number, row in enumerate(self.rows):
            if wanted is not None and row.node is wanted.node and row.organ == wanted.organ:
                self._widget.selectRow(number)
                return
        self._widget.clearSelection()
        self._widget.setCurrentCell(-1, -1)

    @property
    def selected(self):
        """The chosen row, or None."""
        number = self._widget.currentRow()
        return self.rows[number] if 0 <= number < len(self.rows) else None

    def _on_click(self, number, _column):
        if 0 <= number < len(self.rows):
            self._chosen(self.rows[number])
