"""Compiled part of the readings: one pass over the join's table, which holds millions of rows at every tick."""

from __future__ import annotations

import numpy as np
from numba import njit

from tailrace.core.join_table import ACTIVATED, ASSERTED, BLOCKED
from tailrace.core.label_delay import DAY_MS


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def scan(  # type: ignore[no-untyped-def]  # compiled  # hot path
    serial, event_time_ms, cohort, flags, head, closed, outcome, value, outcome_time_ms, cohorts, now_ms
):
    """Looks for predictions that can be judged, and were made by `now_ms`.

    Args are columns of the table, the number of cohorts, and epoch milliseconds.

    Returns:
        int64 (n,) rows whose window is open, with int64 (n,) their day and cohort as one number, and int8 (n,) their
        outcome: 1, 0, or -1 where none has come by `now_ms`; int64 (m,) all rows that have an outcome, with int8 (m,)
        what it is.
    """
    size = serial.size
    waiting, code, said = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int8)
    come, what = np.empty(size, np.int64), np.empty(size, np.int8)
    n, m = 0, 0
    for row in range(size):
        if serial[row] < 0 or (flags[row] & (ACTIVATED | BLOCKED)) != ACTIVATED or event_time_ms[row] > now_ms:
            continue
        first = head[row]
        judged = np.int8(-1)
        if outcome[first] == ASSERTED and outcome_time_ms[first] <= now_ms:
            judged = np.int8(1) if value[first] > 0.0 else np.int8(0)
            come[m], what[m] = row, judged
            m += 1
        if not closed[first]:
            waiting[n], said[n] = row, judged
            code[n] = event_time_ms[row] // DAY_MS * cohorts + cohort[row]
            n += 1
    return waiting[:n].copy(), code[:n].copy(), said[:n].copy(), come[:m].copy(), what[:m].copy()
