"""Feedback in memory: predictions and outcomes in; labels, quality, alarms and requests out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import declared
import msgspec
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tailrace.backends.codec import encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.quality import Quality
from tailrace.contracts.records import WATERMARK_HEADER, LabelledPrediction, Prediction, Source
from tailrace.contracts.retraining import CandidateRefused, RetrainRequested
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.usecase.load import load_use_case

USE_CASE = load_use_case(Path("feature_repo"), "card_fraud")
TOPICS = Topics("card_fraud")
OUTCOMES = USE_CASE.label.topic.name
DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS
WALL_MS = START_MS + 400 * DAY_MS
PARTITIONS = [Assigned(topic, 0, -1, "") for topic in (TOPICS.predictions, TOPICS.shadow, OUTCOMES, TOPICS.retraining)]


class World:
    """A feedback worker that can be killed: what it put out is kept, its changelog is what it restarts from."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.champion: tuple[int, Champion] | None = None
        self._offset = 0
        self.restart()

    def restart(self) -> None:
        self.metrics = Metrics("card_fraud")  # a new process counts from nothing
        followed = [self.champion] if self.champion is not None else []
        self.processor = FeedbackProcessor(
            USE_CASE,
            lambda: [(o.key or b"", o.value) for o in self.outputs if o.topic == TOPICS.feedback_changelog],
            lambda: followed.pop() if followed else None,
            self.metrics,
        )
        self.processor.assigned(PARTITIONS)

    def send(self, *messages: Message) -> None:
        self.outputs += self.processor.process(messages, WALL_MS)

    def message(self, topic: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> Message:
        self._offset += 1
        return Message(topic, 0, self._offset, WALL_MS, b"k", value, list(headers))

    def predict(self, number: int, *, score: float = 0.5, at_ms: int = 0, variant: str = "default") -> Message:
        topic = TOPICS.shadow if variant == "shadow" else TOPICS.predictions
        return self.message(topic, encode(prediction(number, score, START_MS + at_ms, variant)))

    def report(self, number: int, *, at_ms: int, fraud: bool = True) -> Message:
        outcome = {"transaction_id": f"t{number}", "fraud": fraud, "reported_at_ms": START_MS + at_ms}
        return self.message(OUTCOMES, encode(outcome))

    def watermark(self, at_ms: int) -> list[Message]:
        header = [(WATERMARK_HEADER, str(START_MS + at_ms).encode())]
        return [self.message(topic, None, header) for topic in (TOPICS.predictions, TOPICS.shadow, OUTCOMES)]

    def labels(self) -> list[LabelledPrediction]:
        return self._of(TOPICS.labels, LabelledPrediction)

    def final(self) -> dict[str, float | None]:
        return {label.event_id: label.label for label in self.labels() if label.status == "final"}

    def quality(self) -> dict[bytes, Quality]:
        return {
            o.key or b"": msgspec.json.decode(o.value or b"", type=Quality)
            for o in self.outputs
            if o.topic == TOPICS.quality
        }

    def requests(self) -> list[RetrainRequested]:
        return self._of(TOPICS.retraining, RetrainRequested)

    def told(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"tailrace_{name}", labels)

    def _of(self, topic: str, kind: Any) -> list[Any]:
        return [msgspec.json.decode(o.value or b"", type=kind) for o in self.outputs if o.topic == topic]


def prediction(number: int, score: float, event_time_ms: int, variant: str) -> Prediction:
    return declared.prediction(
        USE_CASE,
        f"t{number}",
        event_time_ms,
        score,
        variant=variant,
        entities={"merchant_id": "m"},
        slices={"channel": "web" if number % 2 else "pos"},
        model_version="0" if variant == "default" else "1",
        epoch=0,
        fingerprint=USE_CASE.plan.fingerprint,
        source=Source("t", 0, number),
    )


def figures(world: World) -> dict[bytes, Quality]:
    """What is published of every window, but for when: a restart publishes what it restored once more."""
    return {key: msgspec.structs.replace(quality, watermark_ms=0) for key, quality in world.quality().items()}


def stream(world: World, count: int, seed: int = 0) -> tuple[list[Message], dict[str, float]]:
    """Predictions of one day, frauds reported within a day and a half, in any order, and the truth."""
    rng = np.random.default_rng(seed)
    frauds = rng.random(count) < 0.3
    messages = [
        world.predict(at, score=float(rng.uniform(0.05, 0.95)), at_ms=int(rng.integers(0, DAY_MS)))
        for at in range(count)
    ]
    messages += [world.report(at, at_ms=int(1.5 * DAY_MS)) for at in np.flatnonzero(frauds).tolist()]
    return [messages[at] for at in rng.permutation(len(messages))], {f"t{at}": float(frauds[at]) for at in range(count)}


def test_labels_mature_by_report_or_time_out_whatever_the_order_of_arrival() -> None:
    world = World()
    messages, truth = stream(world, 300)
    world.send(*messages)
    world.send(*world.watermark(5 * DAY_MS))
    assert world.final() == truth


def test_quality_equals_scikit_learn_on_the_published_scores() -> None:
    world = World()
    messages, truth = stream(world, 500)
    world.send(*messages, *world.watermark(5 * DAY_MS))
    [whole] = [q for q in world.quality().values() if q.slice == ""]
    scores = {label.event_id: label.score for label in world.labels()}
    y, p = [truth[event] for event in scores], list(scores.values())
    assert whole.metrics["log_loss"] == pytest.approx(log_loss(y, p), abs=1e-9)
    assert whole.metrics["roc_auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    assert (whole.predictions, whole.final, whole.maturity) == (500, 500, 1.0)
    slices = [q for q in world.quality().values() if q.slice]
    assert {q.slice for q in slices} == {"channel=web", "channel=pos"}
    assert sum(q.final for q in slices) == 500


@pytest.mark.parametrize("seed", range(4))
def test_killed_worker_goes_on_as_if_nothing_had_happened(seed: int) -> None:
    calm, killed = World(), World()
    rng = np.random.default_rng(seed)
    messages, _ = stream(calm, 200, seed)
    steps = [messages[at : at + 40] for at in range(0, len(messages), 40)]
    steps += [calm.watermark(days * DAY_MS) for days in (1, 3, 5, 40)]
    for step in steps:
        calm.send(*step)
        killed.send(*step)
        if rng.random() < 0.5:
            killed.restart()
    # A worker that was killed may judge early outcomes a watermark earlier; what it says of each prediction is the same.
    calm_labels, killed_labels = (
        sorted(world.labels(), key=lambda label: (label.prediction_id, label.label_version)) for world in (calm, killed)
    )
    assert calm_labels == killed_labels
    assert figures(calm) == figures(killed)
    assert calm.requests() == killed.requests()


def days_of(world: World, days: int, per_day: int) -> list[Message]:
    """Predictions of some days and frauds reported within hours or days, in order of time, an hour at a time."""
    rng = np.random.default_rng(7)
    found = []
    for at in range(days * per_day):
        at_ms = int(at / per_day * DAY_MS)
        found.append((at_ms, world.predict(at, score=float(rng.uniform(0.05, 0.95)), at_ms=at_ms)))
        if rng.random() < 0.4:
            came_ms = at_ms + int(rng.exponential(0.6 * DAY_MS))
            found.append((came_ms, world.report(at, at_ms=came_ms)))
    return [message for at_ms, message in sorted(found, key=lambda one: one[0]) if at_ms < days * DAY_MS]


def test_killed_worker_reads_windows_that_wait_for_labels_as_if_nothing_had_happened() -> None:
    calm, killed = World(), World()
    messages = days_of(calm, 5, 150)
    for at in range(0, len(messages), 200):
        for world in (calm, killed):
            world.send(*messages[at : at + 200])
        killed.restart()
    for world in (calm, killed):
        world.send(*world.watermark(5 * DAY_MS))
    assert figures(calm) == figures(killed)
    readings = [q.provisional for q in calm.quality().values() if q.slice == "" and q.provisional is not None]
    assert 2 == sum(reading.withheld == "" for reading in readings)


def test_nothing_is_kept_of_events_that_can_no_longer_change() -> None:
    world = World()
    messages, _ = stream(world, 100)
    world.send(*messages, *world.watermark(5 * DAY_MS))
    world.send(*world.watermark(60 * DAY_MS))
    newest = {o.key: o.value for o in world.outputs if o.topic == TOPICS.feedback_changelog}
    assert not [key for key, value in newest.items() if key is not None and key.startswith(b"event:") and value]


def test_shadow_is_paired_with_the_traffic_and_its_disagreements_are_counted() -> None:
    world = World()
    for at in range(10):
        world.send(world.predict(at, score=0.9, variant="champion"))
        world.send(world.predict(at, score=0.9 if at < 7 else 0.1, variant="shadow"))
    world.send(*world.watermark(DAY_MS))
    [shadow] = [q for q in world.quality().values() if q.variant == "shadow" and q.slice == ""]
    assert (shadow.paired, shadow.disagreements) == (10, 3)


def test_bad_outcome_is_dead_lettered_with_its_reason_and_its_bytes() -> None:
    world = World()
    world.send(world.message(OUTCOMES, b'{"transaction_id": 7}'))
    [letter] = [o for o in world.outputs if o.topic == TOPICS.dead_letters]
    assert letter.value == b'{"transaction_id": 7}'


def test_repeated_contradicting_and_stale_outcomes_are_counted() -> None:
    world = World()
    world.send(world.predict(0), world.predict(1), world.predict(0))
    world.send(world.report(0, at_ms=20), world.report(0, at_ms=20), world.report(0, at_ms=10))
    world.send(world.report(1, at_ms=10), world.report(1, at_ms=10, fraud=False))
    found = {
        kind: world.told("feedback_join_repeats_total", kind=kind)
        for kind in ("duplicate", "conflict", "stale_revision")
    }
    assert found == {"duplicate": 2.0, "conflict": 1.0, "stale_revision": 1.0}


def test_first_model_is_asked_for_once_and_again_only_after_an_answer_and_the_cool_down() -> None:
    world = World()
    for at in range(USE_CASE.retrain.min_labels + 10):
        world.send(world.predict(at, at_ms=at))
    world.send(*world.watermark(5 * DAY_MS))
    [request] = world.requests()
    assert request.trigger == "initial"
    assert request.train_until_ms == START_MS + 5 * DAY_MS
    world.send(*world.watermark(7 * DAY_MS))
    assert len(world.requests()) == 1
    refusal = CandidateRefused(
        run_id=request.run_id, use_case="card_fraud", refused_at_ms=START_MS, reason="too few", gates=[]
    )
    world.send(world.message(TOPICS.retraining, b'{"type":"refused",' + encode(refusal).split(b",", 1)[1]))
    world.send(*world.watermark(12 * DAY_MS))
    assert len(world.requests()) == 2


def test_new_champion_resolves_what_was_said_of_the_old_one() -> None:
    world = World()
    world.champion = (1, Champion("1", {"log_loss": 0.01}, {}))
    world.restart()
    for at in range(400):
        world.send(world.predict(at, score=0.9, at_ms=at, variant="champion"))
    world.send(*world.watermark(5 * DAY_MS))
    raised = [msgspec.json.decode(o.value or b"") for o in world.outputs if o.topic == TOPICS.alarms]
    assert any(alarm["kind"] == "metric_drop" and not alarm.get("resolved") for alarm in raised)
    world.champion = (2, Champion("2", {"log_loss": 0.01}, {}))
    world.restart()
    world.send(*world.watermark(6 * DAY_MS))
    alarms = [msgspec.json.decode(o.value or b"") for o in world.outputs if o.topic == TOPICS.alarms]
    assert {alarm["subject"] for alarm in alarms if alarm.get("resolved")} >= {alarm["subject"] for alarm in raised}


def test_gauges_speak_of_the_champion_survive_a_restart_and_forget_its_predecessor() -> None:
    world = World()
    world.champion = (1, Champion("1", {"log_loss": 0.01}, {}))
    world.restart()
    assert world.told("quality", metric="log_loss", variant="champion") is None
    for at in range(400):
        world.send(world.predict(at, score=0.9, at_ms=at, variant="champion"))
    world.send(*world.watermark(5 * DAY_MS))
    [whole] = [q for q in world.quality().values() if q.slice == ""]
    assert whole.metrics["log_loss"] == world.told("quality", metric="log_loss", variant="champion")
    assert 1.0 == world.told("quality_maturity_ratio", variant="champion")
    assert (START_MS + DAY_MS) / 1_000 == world.told("quality_end_timestamp_seconds", variant="champion")
    drop, limit = world.told("quality_drop", metric="log_loss"), world.told("quality_drop_limit", metric="log_loss")
    assert drop is not None
    assert limit is not None
    assert drop > limit
    standing = world.told("alarms_active", kind="metric_drop")
    assert standing == 1
    world.restart()
    world.send()
    assert world.told("alarms_active", kind="metric_drop") == standing
    world.champion = (2, Champion("2", {"log_loss": 0.01}, {}))
    world.restart()
    world.send()
    assert 0 == world.told("alarms_active", kind="metric_drop")
    assert world.told("quality_drop", metric="log_loss") is None
    assert 2 == world.told("control_epoch")


def test_requests_for_a_model_are_counted_whoever_makes_them() -> None:
    world = World()
    request = RetrainRequested(
        run_id="r", use_case="card_fraud", trigger="manual", reason="?", requested_at_ms=0, train_until_ms=0, by="ops"
    )
    world.send(world.message(TOPICS.retraining, encode(request)))
    assert 1 == world.told("retrain_requests_total", trigger="manual")
    assert 0 == world.told("retrain_requests_total", trigger="initial")
