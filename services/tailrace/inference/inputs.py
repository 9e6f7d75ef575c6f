"""What the models see: the values that came with the event, joined by those of the online store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.ports import OnlineStore, Output, ReadRequest, Rows
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import FeatureRow
from tailrace.core.freshness import Judged, judge
from tailrace.core.plan import Plan
from tailrace.core.windows import evaluate
from tailrace.errors import StoreUnavailable
from tailrace.inference.backoff import Backoff

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 1_000, 30_000
"""How long an online store that failed is left alone: a dead store costs one time-out now and then, not one a batch."""

ROW_STATES = ("fresh", "stale", "absent", "unread")
UNREAD = -2
"""Timestamp of a row that could not be asked for; it counts as absent, and degrades the prediction."""

CHUNK = 1_000
"""Records handled at once: few enough that their numbers stay in the caches from decoding to encoding and that a batch
has several, so that a round trip to the store is hidden; enough that what is done once per chunk costs little."""

_Answer = Callable[[], list[Rows]]
_Found = tuple[Sequence[bytes | None], NDArray[np.int64]]
_LARGEST = float(np.finfo(np.float32).max)


class Chunk(NamedTuple):
    """Records of a micro-batch, in order.

    `rows` are n feature rows to score, `partitions` their partitions of FEATURES, `places` where they stood in
    the chunk; `others` are outputs for the remaining records, each with its place.
    """

    rows: list[FeatureRow]
    partitions: Sequence[int]
    places: Sequence[int]
    others: list[tuple[int, Output]]


class Inputs:
    """A micro-batch ready to score.

    Args:
        rows: n feature rows.
        matrix: float32 (n, d) in plan order, finite or NaN = missing.
        ages_ms: Per online view, int64 (n,), -1 without a row.
        degraded: By row, the views that were replaced by defaults; rows without any are absent.
    """

    def __init__(
        self,
        rows: list[FeatureRow],
        matrix: NDArray[np.float32],
        ages_ms: dict[str, NDArray[np.int64]],
        degraded: dict[int, list[str]],
    ) -> None:
        self.rows = rows
        self.matrix = matrix
        self.ages_ms = ages_ms
        self.degraded = degraded


class InputReader:
    """Makes the inputs of micro-batches.

    Args:
        plan: Serving plan.
        store: Online store with the rows that FEATURES does not carry.
        metrics: Prometheus handles.
        log: Structured logger.
    """

    def __init__(self, plan: Plan, store: OnlineStore, metrics: Metrics, log: Any) -> None:
        self._plan = plan
        self._store = store
        self._metrics = metrics
        self._log = log
        for view in plan.online_views:
            metrics.feature_age.labels(view.name)
            for state in ROW_STATES:
                metrics.feature_rows.labels(view.name, state)
        self._backoff = Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS)

    def read_all(self, chunks: Iterable[Chunk], now_ms: int) -> Iterator[tuple[Chunk, Inputs]]:
        """The inputs of each chunk, in order; the store reads a chunk while the former is scored.

        A store that does not answer degrades the rows, and no more.
        """
        ahead = 1 if self._plan.online_views else 0
        asked: deque[tuple[Chunk, _Answer | None]] = deque()
        for chunk in chunks:
            asked.append((chunk, self._ask(chunk.rows, now_ms)))
            if len(asked) > ahead:
                yield self._read_chunk(*asked.popleft(), now_ms)
        for chunk, answer in asked:
            yield self._read_chunk(chunk, answer, now_ms)

    def _read_chunk(self, chunk: Chunk, answer: _Answer | None, now_ms: int) -> tuple[Chunk, Inputs]:
        return chunk, self._read(chunk.rows, self._answered(answer, len(chunk.rows), now_ms))

    def _read(self, rows: list[FeatureRow], found: list[_Found]) -> Inputs:  # hot path
        own = len(self._plan.own_order)
        values = np.empty((len(rows), len(self._plan.order)), dtype=np.float64)
        values[:, :own] = _numbers([row.values for row in rows], own)
        degraded: dict[int, list[str]] = {}
        ages: dict[str, NDArray[np.int64]] = {}
        views = self._plan.online_views
        if views:
            as_of = np.array([row.event_time_ms for row in rows], dtype=np.int64)
            at = own
            for view, (states, timestamps) in zip(views, found, strict=True):
                judged = judge(view, states, timestamps, as_of)
                values[:, at : at + len(view.columns)] = evaluate(view, judged.states, as_of)
                ages[view.name] = judged.ages_ms
                self._measure(view.name, judged, timestamps)
                for place in np.flatnonzero(judged.stale | (timestamps == UNREAD)).tolist():
                    degraded.setdefault(place, []).append(view.name)
                at += len(view.columns)
        # An infinity would be logged as null, "missing", and the next model would learn from what this one never saw.
        matrix = np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)
        return Inputs(rows, matrix, ages, degraded)

    def _measure(self, view: str, judged: Judged, timestamps_ms: NDArray[np.int64]) -> None:
        there = timestamps_ms >= 0
        stale = int((judged.stale & there).sum())
        unread = int((timestamps_ms == UNREAD).sum())
        found = int(there.sum())
        counts = (found - stale, stale, len(there) - found - unread, unread)
        for state, count in zip(ROW_STATES, counts, strict=True):
            self._metrics.feature_rows.labels(view, state).inc(count)
        self._metrics.feature_age.labels(view).inc(float(judged.ages_ms[there].sum()) / 1000)

    def _ask(self, rows: list[FeatureRow], now_ms: int) -> _Answer | None:
        """What gives the rows of the online views; None where the store is not to be asked."""
        views = self._plan.online_views
        if not views or not rows or not self._backoff.due(now_ms):
            return None
        requests = [
            ReadRequest(view.name, view.entity, [c.name for c in view.columns], [r.entities[view.entity] for r in rows])
            for view in views
        ]
        try:
            return self._store.ask(requests)
        except StoreUnavailable as error:
            self._away(error, now_ms)
            return None

    def _answered(self, answer: _Answer | None, count: int, now_ms: int) -> list[_Found]:
        if answer is not None:
            try:
                found = answer()
            except StoreUnavailable as error:
                self._away(error, now_ms)
            else:
                if self._backoff.pausing:
                    self._log.info("online_store_back")
                self._backoff.succeeded()
                return [(view_rows.state, view_rows.timestamps_ms) for view_rows in found]
        unread = np.full(count, UNREAD, dtype=np.int64)
        return [([None] * count, unread) for _ in self._plan.online_views]

    def _away(self, error: StoreUnavailable, now_ms: int) -> None:
        if not self._backoff.due(now_ms):
            return  # the chunk before has failed, when this one had been asked for
        self._metrics.store_errors.labels("read").inc()
        pause_ms = self._backoff.failed(now_ms)
        self._log.warning("online_store_away", why=str(error), serving="defaults", retry_in_s=pause_ms / 1000)


def _numbers(rows: list[list[float | None]], width: int) -> NDArray[np.float64]:
    """float64 (n, width), None as NaN."""
    try:
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
    except TypeError:  # None is no float; numpy knows what it means, and takes longer
        flat = np.array(rows, dtype=np.float64)
    return flat.reshape(len(rows), width)
