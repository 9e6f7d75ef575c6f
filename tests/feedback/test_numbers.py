"""Feedback on predicted numbers, in memory: errors, readings, restarts, and labels that are revised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from declared import deliveries, prediction
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.quality import Quality
from tailrace.contracts.records import WATERMARK_HEADER, Source
from tailrace.contracts.topics import Topics
from tailrace.core.metrics import merge
from tailrace.core.window_spec import grid_of
from tailrace.feedback.processor import FeedbackProcessor

LABEL = 'matures_after="1d", revision="revision"'
POLICIES = """
model=tr.Regression(low=0.0, high=256.0, quantile=0.9),
monitor=[tr.metrics.MAE("7d", drop=5.0), tr.drift.EDetector("absolute_error")],
"""
DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS
WALL_MS = START_MS + 400 * DAY_MS
TOPICS = Topics("deliveries")


class World:
    """A feedback worker that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.use_case = deliveries(folder, label=LABEL, policies=POLICIES)
        self.outputs: list[Output] = []
        self._offset = 0
        self.restart()

    def restart(self) -> None:
        self.metrics = Metrics("deliveries")
        self.processor = FeedbackProcessor(
            self.use_case,
            lambda: [(o.key or b"", o.value) for o in self.outputs if o.topic == TOPICS.feedback_changelog],
            lambda: None,
            self.metrics,
        )
        self.processor.assigned([Assigned(topic, 0, -1, "") for topic in (TOPICS.predictions, "delivered")])

    def send(self, *messages: Message) -> None:
        self.outputs += self.processor.process(messages, WALL_MS)

    def message(self, topic: str, record: Any, headers: Sequence[tuple[str, bytes]] = ()) -> Message:
        self._offset += 1
        value = None if record is None else encode(record)
        return Message(topic, 0, self._offset, WALL_MS, b"k", value, list(headers))

    def predict(self, number: int, minutes: float, at_ms: int) -> Message:
        city, source = "ABC"[number % 3], Source("orders", 0, number)
        said = {"key": city, "entities": {"city": city}, "slices": {"city": city}, "source": source}
        made = prediction(self.use_case, f"o{number}", START_MS + at_ms, minutes, **said)
        return self.message(TOPICS.predictions, made)

    def report(self, number: int, minutes: float, at_ms: int, revision: int = 0) -> Message:
        record = {"order_id": f"o{number}", "minutes": minutes, "revision": revision, "at_ms": START_MS + at_ms}
        return self.message("delivered", record)

    def watermark(self, at_ms: int) -> None:
        header = [(WATERMARK_HEADER, str(START_MS + at_ms).encode())]
        self.send(*(self.message(topic, None, header) for topic in (TOPICS.predictions, "delivered")))

    def quality(self) -> dict[bytes, Quality]:
        return {o.key or b"": decode(Quality, o.value or b"") for o in self.outputs if o.topic == TOPICS.quality}


def drawn(world: World, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    grid = grid_of(world.use_case.plan)
    assert grid is not None
    rng = np.random.default_rng(1)
    predicted = rng.uniform(20.0, 120.0, n)
    return grid.values(grid.positions(predicted)), predicted + rng.normal(0.0, 8.0, n)


def play(world: World, predicted: np.ndarray, minutes: np.ndarray, *, killed: bool = False) -> dict[bytes, Quality]:
    for number, value in enumerate(predicted.tolist()):
        world.send(world.predict(number, value, number * 1_000))
    for number, value in enumerate(minutes.tolist()):
        world.send(world.report(number, value + 40.0, number * 1_000 + 60_000))
    if killed:
        world.restart()
    # Revised to what it was.
    world.send(
        *(world.report(number, value, number * 1_000 + 60_000, 1) for number, value in enumerate(minutes.tolist()))
    )
    world.watermark(2 * DAY_MS)
    return world.quality()


@pytest.mark.parametrize("killed", [False, True])
def test_errors_of_revised_outcomes_are_those_of_scikit_learn_before_and_after_a_kill(
    tmp_path: Path, killed: bool
) -> None:
    world = World(tmp_path)
    predicted, minutes = drawn(world)
    found = play(world, predicted, minutes, killed=killed)
    whole = next(record for record in found.values() if not record.slice)
    assert whole.final == len(predicted)
    assert whole.metrics["mae"] == pytest.approx(mean_absolute_error(minutes, predicted), abs=0.256)
    assert whole.metrics["rmse"] == pytest.approx(root_mean_squared_error(minutes, predicted), abs=0.256)
    assert whole.metrics["coverage"] == pytest.approx(float((minutes <= predicted).mean()), abs=1e-12)
    low, high = whole.intervals["mae"]
    assert low < (whole.metrics["mae"] or 0.0) < high


def test_slices_add_up_to_the_whole_bit_for_bit(tmp_path: Path) -> None:
    world = World(tmp_path)
    found = list(play(world, *drawn(world)).values())
    whole = next(record for record in found if not record.slice)
    assert merge([record for record in found if record.slice]) == merge([whole])
    assert {name: whole.metrics[name] for name in merge([whole])} == merge([whole])


def test_errors_are_estimated_while_outcomes_are_awaited(tmp_path: Path) -> None:
    world = World(tmp_path)
    predicted, minutes = drawn(world, 600)
    play(world, predicted, minutes)
    for number, value in enumerate(predicted.tolist()):
        world.send(world.predict(1_000 + number, value, 3 * DAY_MS + number * 1_000))
    world.watermark(3 * DAY_MS + DAY_MS // 2)
    waiting = next(
        record
        for record in world.quality().values()
        if not record.slice and record.window_start_ms == START_MS + 3 * DAY_MS
    )
    assert waiting.final == 0
    assert waiting.metrics["mae"] is None
    assert waiting.provisional is not None
    assert "early" in waiting.provisional.withheld
    assert waiting.estimate is not None
    low, high = waiting.estimate.intervals["mae"]
    assert low <= mean_absolute_error(minutes, predicted) <= high

    def told(reading: str, bound: str = "") -> float | None:
        labels = {"metric": "mae", "variant": "champion", "reading": reading} | ({"bound": bound} if bound else {})
        name = "tailrace_quality_reading_bound" if bound else "tailrace_quality_reading"
        return world.metrics.registry.get_sample_value(name, labels)

    assert told("estimate") == waiting.estimate.metrics["mae"]
    assert [told("estimate", "low"), told("estimate", "high")] == [low, high]
    assert told("provisional") is None
    assert told("final") is None
    assert told("fading") == waiting.fading["mae"]
    maturity = world.metrics.registry.get_sample_value(
        "tailrace_quality_reading_maturity_ratio", {"variant": "champion"}
    )
    assert maturity == 0.0
