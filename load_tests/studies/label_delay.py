"""Metrics of days whose labels are still coming, against what they are once all have come.

    python -m load_tests.studies.label_delay [--seeds 8] [--json]

Simulated conversions go through feedback itself. A day's cohort is read when it ends, and 6, 24 and 72 hours later,
as it is (no outcome: negative) and corrected for delay. In the second part the slow delays become 2.5 times longer
on day 14.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from load_tests.studies.conversions import DAY_MS, HOUR_MS, START_MS, Stream, World, simulate, use_case
from load_tests.studies.report import Figure, report
from tailrace.contracts.quality import Reading
from tailrace.core.metrics import metrics_of
from tailrace.core.window_counts import WindowKey

WINDOW_MS = 7 * DAY_MS
PER_DAY = 40_000
FIRST = 14
AGES_H = (0, 6, 24, 72)
BARS = {"base_rate": 0.02, "calibration": 0.02, "log_loss": 0.015, "roc_auc": 0.008}


class Seen(NamedTuple):
    """A cohort as it was read at an age."""

    age_h: int
    days_after: float
    reading: Reading
    naive: dict[str, float | None]
    truth: dict[str, float | None]


def study(seeds: int, per_day: int = PER_DAY) -> list[Figure]:
    steady = [_run(seed, per_day, changed=False) for seed in range(seeds)]
    seen = [one for found, _ in steady for one in found]
    figures = []
    for age_h in AGES_H:
        of_age = [one for one in seen if one.age_h == age_h]
        for name, bar in BARS.items():
            judged = bar if age_h < AGES_H[-1] else None
            figures.append(Figure(f"age {age_h} h: {name}, mean absolute error", _error(of_age, name), judged))
            figures.append(Figure(f"age {age_h} h: {name}, as it is", _error(of_age, name, naive=True)))
    for name in BARS:
        covered = [
            one.reading.intervals[name][0] <= (one.truth[name] or 0.0) <= one.reading.intervals[name][1] for one in seen
        ]
        figures.append(Figure(f"{name}: coverage of the 95 % interval", float(np.mean(covered)), 0.93, ">="))
    figures.append(
        Figure("false alarms of delay drift, seeds", float(sum(alarm is not None for _, alarm in steady)), 0.0)
    )
    return figures + _changed(seeds, per_day)


def _changed(seeds: int, per_day: int) -> list[Figure]:
    runs = [_run(seed, per_day, changed=True) for seed in range(seeds)]
    figures = []
    for name in ("base_rate", "log_loss"):
        for after in (1, 2, 3, 4):
            of_day = [one for found, _ in runs for one in found if after <= one.days_after < after + 1]
            title = f"delays changed {after} to {after + 1} days ago: {name}"
            figures.append(Figure(f"{title}, mean absolute error", _error(of_day, name), 0.015 if after >= 3 else None))
            figures.append(Figure(f"{title}, as it is", _error(of_day, name, naive=True)))
    alarms = [alarm if alarm is not None else np.inf for _, alarm in runs]
    figures.append(Figure("delays changed: days until the last seed's alarm", float(max(alarms)), 2.0))
    return figures


def _run(seed: int, per_day: int, *, changed: bool) -> tuple[list[Seen], float | None]:
    """Cohorts read, and days from the change (or from day 14) to the alarm, None for none."""
    days = FIRST + 6
    stream = simulate(np.random.default_rng(seed), days=days, per_day=per_day, slower_from=FIRST if changed else None)
    world, found, alarm = World(use_case(), stream), [], None
    cohorts = range(FIRST, FIRST + 5) if changed else range(FIRST - 2, FIRST + 3)
    for now_ms in range(START_MS + 6 * HOUR_MS, START_MS + days * DAY_MS + 1, 6 * HOUR_MS):
        world.advance(now_ms)
        ages_h = {day: (now_ms - START_MS - (day + 1) * DAY_MS) // HOUR_MS for day in cohorts}
        due = {day: age_h for day, age_h in ages_h.items() if age_h in AGES_H}
        is_watched = now_ms > START_MS + FIRST * DAY_MS and alarm is None
        if not due and not is_watched:
            continue
        readings = world.state.readings()
        if readings.drift is not None and alarm is None:
            alarm = (now_ms - START_MS) / DAY_MS - FIRST
        for day, age_h in due.items():
            found.append(_seen(stream, day, age_h, now_ms, readings.provisional(_key(day))))
    return found, alarm


def _seen(stream: Stream, day: int, age_h: int, now_ms: int, reading: Reading | None) -> Seen:
    if reading is None or reading.withheld:
        raise RuntimeError(f"no reading of day {day}")
    mine = stream.time_ms // DAY_MS * DAY_MS == START_MS + day * DAY_MS
    final = stream.final(WINDOW_MS)
    come = final & (stream.time_ms + stream.delay_ms <= now_ms)
    naive, truth = (metrics_of(stream.score[mine], labels[mine], 0.5) for labels in (come, final))
    return Seen(age_h, (now_ms - START_MS) / DAY_MS - FIRST, reading, naive, truth)


def _error(seen: list[Seen], name: str, *, naive: bool = False) -> float:
    """Mean absolute error, relative but for the area under the curve."""
    said = np.array([(one.naive if naive else one.reading.metrics)[name] or 0.0 for one in seen])
    truth = np.array([one.truth[name] or 0.0 for one in seen])
    return float(np.mean(np.abs(said - truth) / (1.0 if name == "roc_auc" else truth)))


def _key(day: int) -> WindowKey:
    return WindowKey(START_MS + day * DAY_MS, "champion", "1", "")


if __name__ == "__main__":
    report(study)
