"""What windows of live quality hold besides scores, where a use case asks for it: errors, amounts, first names.

All of it is whole numbers, or lists that are exact however they are split, so that days and workers add up.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import TopPrediction
from tailrace.core.amounts import hundredths
from tailrace.core.error_cells import ErrorCells, cell_of
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.metrics import ScoreHistogram
from tailrace.core.prediction_texts import Text
from tailrace.core.regression import ValueGrid
from tailrace.core.scoring import bin_of
from tailrace.core.top_predictions import TopPredictions
from tailrace.core.window_spec import WindowSpec

Places = NDArray[np.int64]


class ExtraCounts(msgspec.Struct, omit_defaults=True):
    """Extras of one window as they are stored; `amounts` as `ScoreHistogram.sparse` gives them."""

    errors: list[int] = []
    amounts: tuple[list[int], list[int], list[int]] = ([], [], [])
    top: list[TopPrediction] = []


class Extras:
    """Extras of one window.

    Args:
        spec: What it holds.
        whole: Whether it speaks of all of the traffic: names are kept of the whole alone.
    """

    __slots__ = ("amounts", "errors", "top")

    def __init__(self, spec: WindowSpec, *, whole: bool) -> None:
        self.errors = ErrorCells() if spec.grid is not None else None
        self.amounts = ScoreHistogram() if spec.weighted else None
        self.top = TopPredictions(spec.top, distinct=spec.distinct) if spec.top and whole else None

    def stored(self) -> ExtraCounts:
        """To be stored."""
        counts = ExtraCounts()
        if self.errors is not None:
            counts.errors = self.errors.stored()
        if self.amounts is not None:
            counts.amounts = self.amounts.sparse()
        if self.top is not None:
            counts.top = self.top.entries()
        return counts

    def add(self, counts: ExtraCounts) -> None:
        """Adds what was stored."""
        if self.errors is not None and counts.errors:
            self.errors.add(ErrorCells.read(counts.errors))
        if self.amounts is not None:
            self.amounts.add_sparse(*counts.amounts)
        if self.top is not None:
            self.top.offer(counts.top)


class ExtraRows:
    """Predictions of a batch, with what extras need of them.

    Args:
        spec: What windows hold.
        table: Where the predictions stand.
        rows: int64 (n,), their rows.
    """

    def __init__(self, spec: WindowSpec, table: JoinTable, rows: Rows) -> None:
        self._table, self._rows, self._grid = table, rows, spec.grid
        scores = table.score[rows]
        self._positions = bin_of(scores).astype(np.int64) if spec.grid is None else spec.grid.positions(scores)

    def predicted(self, extras: Extras, which: Places) -> None:
        """Counts predictions: int64 (k,), places among the rows."""
        if extras.errors is not None:
            extras.errors.predicted(cell_of(self._positions[which]))
        if extras.top is not None:
            which = which[self._positions[which] >= extras.top.floor]
            positions = self._positions[which].tolist()
            extras.top.offer(
                TopPrediction(position=position, prediction_id=text.prediction_id, key=_plain(text.key))
                for position, text in zip(positions, self._texts(which), strict=True)
            )

    def labelled(self, extras: Extras, which: Places, labels: NDArray[np.float64], times: int) -> None:
        """Counts labels, float64 (n,) of all rows, or takes them back with `times` -1."""
        if extras.errors is not None and self._grid is not None:
            errors = self._grid.errors(self._table.score[self._rows[which]], labels[which])
            extras.errors.labelled(cell_of(self._positions[which]), errors, times)
        if extras.amounts is not None:
            self._add_amounts(extras.amounts, which, labels[which] > 0.0, times)
        if extras.top is not None:
            which = which[self._positions[which] >= extras.top.floor]
            names = [text.prediction_id for text in self._texts(which)]
            said = (labels[which] > 0.0).tolist() if times > 0 else [None] * len(names)
            extras.top.label(dict(zip(names, said, strict=True)))

    def _add_amounts(self, amounts: ScoreHistogram, which: Places, positive: NDArray[np.bool_], times: int) -> None:
        at_stake = hundredths(np.array([text.amount for text in self._texts(which)], dtype=np.float64)) * times
        bins, place = np.unique(self._positions[which], return_inverse=True)
        n, positives = np.zeros((2, len(bins)), np.int64)
        np.add.at(n, place, at_stake)
        np.add.at(positives, place[positive], at_stake[positive])
        amounts.add_sparse(bins.tolist(), n.tolist(), positives.tolist())

    def _texts(self, which: Places) -> list[Text]:
        return self._table.read(self._rows[which]) if which.size else []


def errors_of(
    grid: ValueGrid, table: JoinTable, rows: Rows, labels: NDArray[np.float64]
) -> tuple[Places, NDArray[np.bool_]]:
    """Errors of rows in steps, and which outcomes lie above their prediction: int64 and bool (n,)."""
    scores = table.score[rows]
    return grid.errors(scores, labels), labels > scores


def _plain(key: msgspec.Raw) -> str:
    return str(msgspec.json.decode(key))
