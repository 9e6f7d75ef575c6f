"""Half of the outcomes lost for some hours where only positives are reported: what counts, and what is said of it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from load_tests.studies.conversions import DAY_MS, HOUR_MS, START_MS, Stream, World, simulate, use_case
from load_tests.studies.lost_late_outcomes import DETECTORS, SHARE, Law, broken, champion
from tailrace.core.lost_outcomes import MATERIAL, within
from tailrace.core.monitor_state import MonitorSnapshot
from tailrace.core.window_counts import WindowKey
from tailrace.feedback.changelog import Changelog, Clock, newest_of
from tailrace.feedback.specs import horizon_ms
from tailrace.feedback.state import FeedbackState

WINDOW_MS = DAY_MS
DAY, HOURS = 5, 2
BEGIN_MS = START_MS + DAY * DAY_MS + 7 * HOUR_MS
TIMES_MS = [START_MS + hour * HOUR_MS for hour in [*range(6, 24 * DAY, 6), *range(24 * DAY, 24 * DAY + 36)]]


def stream() -> tuple[Stream, Stream]:
    """What would have come, and what came: half of the outcomes of two hours are lost."""
    rng = np.random.default_rng(5)
    whole = simulate(rng, days=7, per_day=12_000, base=0.0)
    whole = whole._replace(label=whole.label & (whole.delay_ms < WINDOW_MS))
    came_ms = whole.time_ms + whole.delay_ms
    lost = (BEGIN_MS <= came_ms) & (came_ms < BEGIN_MS + HOURS * HOUR_MS) & (rng.random(len(came_ms)) < SHARE)
    return whole, whole._replace(label=whole.label & ~lost)


class Kept(World):
    """Feedback that keeps its changelog, from which it can be restored."""

    def __init__(self, given: Stream) -> None:
        super().__init__(use_case(window="1d", monitor=DETECTORS), given)
        self.given, self.log, self.decided = given, [], []
        self.serve()

    def serve(self) -> None:
        self.state.serve(champion(self.given))

    def hour(self, now_ms: int) -> None:
        self.advance(now_ms)
        self.decided += [msgspec.json.encode(alarm) for alarm in self.state.monitor.advance(now_ms)]
        self.decided += [msgspec.json.encode(one) for one in self.state.tick(now_ms).decided]

    def _store(self) -> None:
        outputs = self.state.labels[0].store(self.changelog)
        self.log += [(output.key or b"", output.value) for output in outputs]

    def restart(self) -> None:
        declared: Any = use_case(window="1d", monitor=DETECTORS)
        stored = msgspec.json.decode(msgspec.json.encode(self.state.monitor.snapshot()), type=MonitorSnapshot)
        clock = Clock(self.state.watermark_ms, stored, declared.label.name)
        self.changelog = Changelog("", horizon_ms(declared.label))
        self.state = FeedbackState(declared, [self.changelog.restore(newest_of(self.log))], clock)
        self.serve()


def test_of_the_events_that_count_hardly_a_positive_is_missing_and_nothing_is_caused() -> None:
    found = broken(1, Law("1d", 1, 12_000, 3), 2)
    assert found.missing <= MATERIAL < found.would_be_missing
    assert 0.0 < found.left_out_h
    assert 0 == found.caused


def test_a_worker_that_restarts_leaves_out_the_same_and_decides_the_same() -> None:
    _, came = stream()
    one, two = Kept(came), Kept(came)
    for at, now_ms in enumerate(TIMES_MS):
        for world in (one, two):
            world.hour(now_ms)
        if at % 7 == 0:
            two.restart()
    assert one.decided == two.decided
    assert one.state.monitor.lost.spans == two.state.monitor.lost.spans != []
    keys = list(one.state.windows)
    assert sorted(keys) == sorted(two.state.windows)
    for key in keys:
        for mine, other in zip(one.state.windows.histogram([key]), two.state.windows.histogram([key]), strict=True):
            assert mine.tolist() == other.tolist()


def test_readings_of_the_day_speak_of_the_events_that_count() -> None:
    whole, came = stream()
    world = Kept(came)
    key = WindowKey(START_MS + DAY * DAY_MS, "champion", "1", "")
    for now_ms in TIMES_MS:
        world.hour(now_ms)
    early = world.state.readings().provisional(key)
    world.hour(START_MS + (DAY + 2) * DAY_MS)
    spans, mine = world.state.monitor.lost.spans, whole.time_ms // DAY_MS * DAY_MS == key.start_ms
    counts = mine & ~within(spans, whole.time_ms)
    final = world.state.windows.histogram([key])
    assert counts.sum() == final.n.sum() < mine.sum()
    truth, naive = whole.label[counts].mean(), came.label[mine].mean()
    assert final.positives.sum() / final.n.sum() == pytest.approx(truth, rel=MATERIAL)
    assert naive < (1.0 - MATERIAL) * whole.label[mine].mean()
    assert early is not None
    assert early.intervals["base_rate"][0] <= truth <= early.intervals["base_rate"][1]
