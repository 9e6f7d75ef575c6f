"""What the label of a prediction is, given its outcome and whether its window has closed; for many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import LabelReason, LabelStatus
from tailrace.core.join_records import JoinSpec
from tailrace.core.join_table import ACTIVATED, ASSERTED, BLOCKED, LEFT, NO_OUTCOME, JoinTable, Rows

STATUSES: tuple[LabelStatus, ...] = get_args(LabelStatus)
REASONS: tuple[LabelReason, ...] = get_args(LabelReason)
PENDING, PROVISIONAL, FINAL, CENSORED = range(4)
_, OUTCOME, WINDOW_CLOSED, TIMEOUT, CORRECTION, RETRACT, CENSORED_NOW = range(7)
NO_TIME = -(2**63)
"""Stands for no time in a column of times."""


class Changes(NamedTuple):
    """Labels that changed, as columns of n.

    `rows` int64 says whose; `places` int64, where each stood in what was settled; `version` int32; `label`
    float64, NaN for none; `status` and `reason` int8, numbers in `STATUSES` and `REASONS`; `known_at_ms` int64;
    `outcome_time_ms` int64, `NO_TIME` for none; `previous` float64, the final label it replaces, NaN for none; `source` uint8, code
    of who reported it.
    """

    rows: Rows
    places: NDArray[np.int64]
    version: NDArray[np.int32]
    label: NDArray[np.float64]
    status: NDArray[np.int8]
    reason: NDArray[np.int8]
    known_at_ms: NDArray[np.int64]
    outcome_time_ms: NDArray[np.int64]
    previous: NDArray[np.float64]
    source: NDArray[np.uint8]

    @staticmethod
    def none() -> Changes:
        """No changes."""
        return _NONE

    @staticmethod
    def joined(parts: Sequence[Changes]) -> Changes:
        """Changes one after the other."""
        if len(parts) == 1:
            return parts[0]
        return Changes._make(np.concatenate(columns) for columns in zip(_NONE, *parts, strict=True))

    def taken(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> Changes:
        """Some of them, by a mask or by position."""
        return Changes._make(column[which] for column in self)

    @staticmethod
    def in_order(parts: Sequence[tuple[NDArray[np.int64], Changes]]) -> Changes:
        """Changes sorted by the places that stand beside them; those of one place keep their order."""
        if not parts:
            return _NONE
        places = np.concatenate([places for places, _ in parts])
        return Changes.joined([changes for _, changes in parts]).taken(np.argsort(places, kind="stable"))


_NONE = Changes._make(np.empty(0, kind) for kind in ("i8", "i8", "i4", "f8", "i1", "i1", "i8", "i8", "f8", "u1"))


def settle(
    table: JoinTable, rows: Rows, spec: JoinSpec, latest_ms: NDArray[np.int64] | None = None
) -> Changes:  # hot path
    """Writes down what the labels of rows are now; a change only where one differs from what was said last.

    Args:
        table: Where the rows stand; outcome and closed window are those of the event's first row.
        rows: int64 (n,), distinct.
        spec: What the absence of an outcome means.
        latest_ms: int64 (n,), newest time among all outcomes of the event, where it has several: what they come to
            together is known since then, whichever of them decides.
    """
    heads = table.head[rows]
    closed, outcome = table.closed[heads], table.outcome[heads]
    reported = outcome != NO_OUTCOME
    known = outcome == ASSERTED
    label, status = _labels(table.flags[rows], closed, outcome, table.value[heads], spec)
    was, was_status = table.label[rows], table.status[rows]
    places = np.flatnonzero((status != was_status) | ~((label == was) | (np.isnan(label) & np.isnan(was))))
    rows, heads = rows[places], heads[places]
    label, status, was, was_status = label[places], status[places], was[places], was_status[places]
    reported, known = reported[places], known[places]
    retracted = reported & ~known & (table.version[rows] > 0)
    reason = _reasons(status, was_status, reported, retracted)
    at_end = ~reported | (reason == TIMEOUT) | (reason == WINDOW_CLOSED) | (reason == CENSORED_NOW)
    end_ms = table.event_time_ms[rows] + (spec.window_ms + spec.lateness_ms)
    outcome_ms = table.outcome_time_ms[heads]
    source = table.source[heads]
    known_at_ms = np.where(at_end, end_ms, outcome_ms if latest_ms is None else latest_ms[places])
    table.version[rows] += 1
    table.label[rows], table.status[rows], table.known_at_ms[rows] = label, status, known_at_ms
    table.told_by[rows] = source
    return Changes(
        rows,
        places,
        table.version[rows],
        label,
        status,
        reason,
        known_at_ms,
        np.where(known, outcome_ms, NO_TIME),
        np.where(was_status == FINAL, was, np.nan),
        source,
    )


def _labels(
    flags: NDArray[np.uint8],
    closed: NDArray[np.bool_],
    outcome: NDArray[np.int8],
    value: NDArray[np.float64],
    spec: JoinSpec,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    known = outcome == ASSERTED
    label = np.where(known, value, np.nan)
    status = np.where(known, PROVISIONAL, PENDING).astype(np.int8)
    status[known & (closed | spec.closes_at_outcome)] = FINAL
    absent = closed & ~known
    status[absent] = CENSORED
    if spec.if_absent is not None:
        absent &= outcome != LEFT
        status[absent], label[absent] = FINAL, 0.0
    unseen = (flags & (ACTIVATED | BLOCKED)) != ACTIVATED
    if unseen.any():
        label[unseen] = np.nan
        status[unseen] = np.where(closed[unseen], CENSORED, PENDING)
    return label, status


def _reasons(
    status: NDArray[np.int8],
    was: NDArray[np.int8],
    reported: NDArray[np.bool_],
    retracted: NDArray[np.bool_],
) -> NDArray[np.int8]:
    reason = np.full(len(status), OUTCOME, np.int8)
    reason[(was == PROVISIONAL) & (status == FINAL)] = WINDOW_CLOSED
    reason[(status == FINAL) & ~reported] = TIMEOUT
    reason[(was == FINAL) | (was == CENSORED)] = CORRECTION
    reason[retracted] = RETRACT
    reason[status == CENSORED] = CENSORED_NOW
    return reason
