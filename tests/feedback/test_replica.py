"""What tasks say of their tables, applied to one table: sources, quarantines and what has left, as one worker holds them."""

from __future__ import annotations

import numpy as np
from test_quarantine import DAY_MS, NAMES, SPEC, finals, predicted, reported

from tailrace.contracts.retraining import Quarantined
from tailrace.core.window_spec import PLAIN
from tailrace.feedback.changelog import Changelog
from tailrace.feedback.label_state import LabelState
from tailrace.feedback.observations import Observed
from tailrace.feedback.replica import Replica
from tailrace.feedback.task import ObservedJoin

TASKS = 3


def restarted(replica: Replica, told: list[tuple[int, Observed]], spans: list[Quarantined]) -> Replica:
    """A replica that is made anew from what the tasks have said, and from the windows of what is gone."""
    again = Replica(SPEC, 100 * DAY_MS, PLAIN)
    again.restore_sources(replica.counts.source_names, {task: replica.codes(task) for task in range(TASKS)})
    for task, observed in told:
        again.take_again(task, observed)
    settled = replica.counts.settled
    again.counts.restore({key: settled.counts(key) for key in settled})
    again.counts.set_aside(spans)
    return again


def test_windows_of_a_replica_are_those_of_one_worker_though_each_task_numbers_sources_by_itself() -> None:
    rng = np.random.default_rng(3)
    alone, replica = LabelState(SPEC, 100 * DAY_MS), Replica(SPEC, 100 * DAY_MS, PLAIN)
    tasks = [ObservedJoin(SPEC) for _ in range(TASKS)]
    logs = [Changelog("c", 50_000) for _ in range(TASKS + 1)]
    gone, told, spans = 0, [], []
    for step in range(280):
        now_ms = step * 100
        states: list[LabelState | ObservedJoin] = [alone, tasks[step % TASKS]]
        for state in states:
            state.predict(predicted(step, now_ms))
        for _ in range(3):
            at = int(rng.integers(max(step - 15, 0), step + 1))
            source, value = NAMES[int(rng.integers(3))], float(rng.integers(2))
            said = reported(at, source, value, at * 100 + int(rng.integers(900)), int(rng.integers(4)))
            alone.observe(said)
            tasks[at % TASKS].observe(said)
        for state in [alone, *tasks]:
            state.advance(now_ms)
            state.forget(now_ms)
        until_ms = 7_000 if step >= 80 else None
        if step in (40, 80):
            spans = [Quarantined(source="liar", since_ms=2_000, until_ms=until_ms)]
            alone.set_aside(spans)
            replica.counts.set_aside(spans)
        for state, log in zip([alone, *tasks], logs, strict=True):
            state.store(log)
        for task, join in enumerate(tasks):
            for observed in join.take_observed():
                replica.take(task, observed)
                told.append((task, observed))
        gone += sum(len(serial) for _, serial in replica.gone)
        replica.free()
        assert finals(replica.counts.windows) == finals(alone.windows)
        assert finals(replica.counts.settled) == finals(alone.counts.settled)
        if step in (30, 60, 150, 270):
            again = restarted(replica, told, spans)
            assert finals(again.counts.windows) == finals(alone.windows)
            assert again.counts.source_names == replica.counts.source_names
            assert len(again.table) == len(alone.table)
    # What spoke of rows that are gone is no longer kept.
    assert finals(restarted(replica, told[len(told) // 6 :], spans).counts.windows) == finals(replica.counts.windows)
    assert gone > 50
    assert len(replica.table) == len(alone.table)
    assert len({tuple(task.sources.names) for task in tasks if task.sources is not None}) > 1
