"""Labels by hour of event time, as the watch over sources takes them, once they have come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tailrace.core.join_table import NO_OUTCOME, JoinTable, Rows
from tailrace.core.label_sources import LabelBlock
from tailrace.core.labels import CENSORED, FINAL
from tailrace.core.outcome_sources import NOBODY
from tailrace.core.sampling import COMPLETE, HOUR_MS


def ripe(table: JoinTable, from_ms: int, watermark_ms: int, wait_ms: int) -> Iterator[LabelBlock]:
    """Hours whose labels have come, in order, up to the first whose labels have not: those that may be trained on.

    Args:
        table: Predictions with what is known of them.
        from_ms: First hour that is asked for; -1 for the first there is.
        watermark_ms: Stream time.
        wait_ms: How long a label can take to become final.
    """
    rows = table.in_use()
    shadows = np.array([cohort.variant == "shadow" for cohort in table.cohorts], dtype=np.bool_)
    if rows.size:
        rows = rows[~shadows[table.cohort[rows]] & (table.event_time_ms[rows] >= max(from_ms, 0))]
    if not rows.size:
        return
    hours = table.event_time_ms[rows] // HOUR_MS
    order = np.argsort(hours, kind="stable")
    for mine in np.split(rows[order], np.flatnonzero(np.diff(hours[order])) + 1):
        start_ms = int(table.event_time_ms[mine[0]]) // HOUR_MS * HOUR_MS
        end_ms, status = start_ms + HOUR_MS, table.status[mine]
        complete = ((status == FINAL) | (status == CENSORED)).mean() >= COMPLETE
        if end_ms > watermark_ms or not (complete or end_ms + wait_ms <= watermark_ms):
            return
        yield _block(table, mine, start_ms, end_ms)


def recent(table: JoinTable, since_ms: int, watermark_ms: int) -> LabelBlock:
    """All final labels of the traffic's events since a time, whether others of their hours are still to come or not."""
    shadows = np.array([cohort.variant == "shadow" for cohort in table.cohorts], dtype=np.bool_)
    rows = table.in_use()
    rows = rows[table.event_time_ms[rows] >= since_ms]
    if rows.size:
        rows = rows[~shadows[table.cohort[rows]]]
    return _block(table, rows, since_ms // HOUR_MS * HOUR_MS, watermark_ms)


def _block(table: JoinTable, rows: Rows, start_ms: int, end_ms: int) -> LabelBlock:
    head = table.head[rows]
    told = (table.status[rows] == FINAL) & (table.told_by[rows] != NOBODY) & (table.outcome[head] != NO_OUTCOME)
    predictions, rows = len(rows), rows[told]
    rows = rows[np.argsort(table.event_time_ms[rows], kind="stable")]
    times = table.event_time_ms[rows]
    if (np.diff(times) == 0).any():
        # Not by arrival: pairs must be the same however the topics were read.
        ids = np.array([text.prediction_id for text in table.read(rows)])
        rows = rows[np.lexsort((ids, times))]
    head = table.head[rows]
    delay_ms = table.outcome_time_ms[head] - table.event_time_ms[rows]
    times, positive = table.event_time_ms[rows], table.label[rows] > 0.0
    return LabelBlock(start_ms, end_ms, times, table.score[rows], positive, table.told_by[rows], delay_ms, predictions)
