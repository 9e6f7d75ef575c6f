"""Compiled loops of the loss detectors: one step per value, in order."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

MAX_BUCKETS = 5
CHECK_EVERY = 32
MIN_PART = 5
ROWS = 64
"""Rows of buckets: enough for 2**64 values."""
COUNT, TOTAL, SQUARES, TICKS, USED = range(5)
PH_COUNT, PH_MEAN, PH_EXCESS = range(3)
SR, CUSUM, SINCE_COUNT, SINCE_TOTAL = range(4)


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def page_hinkley(values, state, min_instances, delta, threshold):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Feeds values; gives the position of the first at which drift was detected, -1 for none."""
    first = -1
    for at in range(values.size):
        state[PH_COUNT] += 1.0
        state[PH_MEAN] += (values[at] - state[PH_MEAN]) / state[PH_COUNT]
        state[PH_EXCESS] = max(0.0, state[PH_EXCESS] + (values[at] - state[PH_MEAN] - delta))
        if state[PH_COUNT] >= min_instances and state[PH_EXCESS] > threshold:
            if first < 0:
                first = at
            state[:] = 0.0
    return first


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def adwin(values, state, filled, sums, squares, delta):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Feeds values in [0, 1]; gives the position of the first at which the mean had risen, -1 for none.

    Row i of `sums` and `squares` holds `filled[i]` buckets of 2**i values, the oldest first.
    """
    first = -1
    for at in range(values.size):
        _insert(values[at], state, filled, sums, squares)
        if state[TICKS] % CHECK_EVERY == 0 and _shrink(state, filled, sums, squares, delta) and first < 0:
            first = at
    return first


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _insert(value, state, filled, sums, squares):  # type: ignore[no-untyped-def]  # compiled
    state[TICKS] += 1.0
    state[COUNT] += 1.0
    state[TOTAL] += value
    state[SQUARES] += value * value
    total, square = value, value * value
    row = 0
    while True:
        if row == state[USED]:
            state[USED] += 1.0
            filled[row] = 0
        sums[row, filled[row]] = total
        squares[row, filled[row]] = square
        filled[row] += 1
        if filled[row] <= MAX_BUCKETS:
            return
        total, square = sums[row, 0] + sums[row, 1], squares[row, 0] + squares[row, 1]
        filled[row] -= 2
        for place in range(filled[row]):
            sums[row, place] = sums[row, place + 2]
            squares[row, place] = squares[row, place + 2]
        row += 1


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _shrink(state, filled, sums, squares, delta):  # type: ignore[no-untyped-def]  # compiled
    """Drops old buckets while a cut is significant; True if the newer part was the larger."""
    risen = False
    while True:
        cut = _cut(state, filled, sums, delta)
        if cut == 0:
            return risen
        risen = risen or cut > 0
        row = int(state[USED]) - 1
        state[COUNT] -= 2.0**row
        state[TOTAL] -= sums[row, 0]
        state[SQUARES] -= squares[row, 0]
        filled[row] -= 1
        for place in range(filled[row]):
            sums[row, place] = sums[row, place + 1]
            squares[row, place] = squares[row, place + 1]
        while state[USED] > 0 and filled[int(state[USED]) - 1] == 0:
            state[USED] -= 1.0


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _cut(state, filled, sums, delta):  # type: ignore[no-untyped-def]  # compiled
    """Whether some cut is significant: 1 with a larger newer part, -1 with a smaller, 0 for no cut."""
    count, total = state[COUNT], state[TOTAL]
    if count < 2 * MIN_PART:
        return 0
    mean = total / count
    variance = max(state[SQUARES] / count - mean * mean, 0.0)
    confidence = math.log(2.0 * math.log(count) / delta)
    old_count, old_total = 0.0, 0.0
    for row in range(int(state[USED]) - 1, -1, -1):
        for place in range(filled[row]):
            old_count += 2.0**row
            old_total += sums[row, place]
            new_count = count - old_count
            if old_count < MIN_PART or new_count < MIN_PART:
                continue
            gap = (total - old_total) / new_count - old_total / old_count
            weight = 1.0 / (old_count - MIN_PART + 1) + 1.0 / (new_count - MIN_PART + 1)
            bound = math.sqrt(2.0 * weight * variance * confidence) + 2.0 / 3.0 * weight * confidence
            if abs(gap) > bound:
                return 1 if gap > 0.0 else -1
    return 0


def empty_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows without buckets: `filled` int64 (ROWS,), `sums` and `squares` float64 (ROWS, MAX_BUCKETS + 1)."""
    return np.zeros(ROWS, np.int64), np.zeros((ROWS, MAX_BUCKETS + 1)), np.zeros((ROWS, MAX_BUCKETS + 1))


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def e_detector(values, times, bets, mean, alarm_at, started, since, status):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Feeds values in [0, 1] to an armed detector until it alarms or they end.

    Args:
        values: float64 (n,), in [0, 1].
        times: int64 (n,), copied to `since` where a change may have begun.
        bets: float64 (k,), of every alternative: each in (0, 1 / mean).
        mean: What the conditional mean does not exceed without a change.
        alarm_at: Sum of the statistics over the alternatives at which there is an alarm.
        started: float64 (k, 4): Shiryaev-Roberts and CUSUM statistic, number and sum of the values since
            the CUSUM statistic left 1; written.
        since: int64 (k,), time of the first of those; written.
        status: float64 (1,): sum of the Shiryaev-Roberts statistics; written.

    Returns:
        Number of values taken.
    """
    for at in range(values.size):
        total = 0.0
        for k in range(bets.size):
            e_value = 1.0 + bets[k] * (values[at] - mean)
            started[k, SR] = (started[k, SR] + 1.0) * e_value
            total += started[k, SR]
            if started[k, CUSUM] <= 1.0:
                started[k, CUSUM] = 1.0
                started[k, SINCE_COUNT] = 0.0
                started[k, SINCE_TOTAL] = 0.0
                since[k] = times[at]
            started[k, CUSUM] *= e_value
            started[k, SINCE_COUNT] += 1.0
            started[k, SINCE_TOTAL] += values[at]
        status[0] = total
        if total >= alarm_at:
            return at + 1
    return values.size


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def e_recovery(values, bet, mean, arm_at, state):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Feeds values in [0, 1] until the mean is known to be below `mean` again, or they end.

    Args:
        values: float64 (n,), in [0, 1].
        bet: In (0, 1 / (1 - mean)).
        mean: The level to fall below.
        arm_at: Shiryaev-Roberts statistic at which it has.
        state: float64 (3,): the statistic, number and sum of the values since the alarm; written.

    Returns:
        Number of values taken.
    """
    for at in range(values.size):
        state[0] = (state[0] + 1.0) * (1.0 + bet * (mean - values[at]))
        state[1] += 1.0
        state[2] += values[at]
        if state[0] >= arm_at:
            return at + 1
    return values.size
