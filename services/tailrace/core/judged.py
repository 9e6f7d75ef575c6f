"""Labels that have just become final, on their way to the loss detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.erasure import Asked
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.prediction_texts import Text


class Judged(NamedTuple):
    """Final labels as columns: `known_at_ms` and `event_time_ms` int64, `scores` float64, `positive` bool, n each.

    `texts` are those of the join's table; the id in them decides the order where both times are the same.
    `slices` are JSON objects as the predictions hold them; `source` uint8, codes of who reported them.
    """

    known_at_ms: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    texts: list[bytes]
    scores: NDArray[np.float64]
    positive: NDArray[np.bool_]
    slices: list[bytes]
    source: NDArray[np.uint8]

    @staticmethod
    def of(table: JoinTable, rows: Rows, known_at_ms: NDArray[np.int64], labels: NDArray[np.float64]) -> Judged:
        """Labels of rows: known since int64 (n,), and float64 (n,), positive above 0."""
        texts = table.texts[rows].tolist()
        slices = [table.cohorts[cohort].slices for cohort in table.cohort[rows].tolist()]
        times, source = table.event_time_ms[rows], table.told_by[rows]
        return Judged(known_at_ms, times, texts, table.score[rows], labels > 0.0, slices, source)

    @staticmethod
    def joined(parts: Sequence[Judged]) -> Judged:
        """Labels one after the other."""
        none = np.empty(0, np.int64)
        return Judged(
            np.concatenate([none, *(part.known_at_ms for part in parts)]),
            np.concatenate([none, *(part.event_time_ms for part in parts)]),
            [text for part in parts for text in part.texts],
            np.concatenate([np.empty(0), *(part.scores for part in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(part.positive for part in parts)]),
            [text for part in parts for text in part.slices],
            np.concatenate([np.empty(0, np.uint8), *(part.source for part in parts)]),
        )

    def taken(self, places: NDArray[np.integer]) -> Judged:
        """Some of them, by position."""
        texts, slices = ([column[place] for place in places.tolist()] for column in (self.texts, self.slices))
        times = self.known_at_ms[places], self.event_time_ms[places]
        return Judged(*times, texts, self.scores[places], self.positive[places], slices, self.source[places])

    def without(self, asked: Asked) -> Judged:
        """Those of events that are not asked for."""
        return self.taken(np.flatnonzero(~asked(self.texts, self.event_time_ms)))

    def in_order(self) -> Judged:
        """By the time they became known, then event time, then prediction id."""
        order = np.lexsort((self.event_time_ms, self.known_at_ms))
        same = np.diff(self.known_at_ms[order]) | np.diff(self.event_time_ms[order])
        if (same == 0).any():
            # Few share both times, but the ids of all are at hand only as text.
            ids = [msgspec.json.decode(text, type=Text).prediction_id for text in self.texts]
            columns = (self.known_at_ms.tolist(), self.event_time_ms.tolist(), ids, self.scores.tolist())
            keys = list(zip(*columns, self.positive.tolist(), strict=True))
            order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
        return self.taken(order)
