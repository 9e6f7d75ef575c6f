"""A use case with several labels, and two ways to drive its feedback: in memory, and on a real broker."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec
from confluent_kafka import TopicPartition
from declared import prediction

from tailrace.backends.codec import encode
from tailrace.backends.kafka import group_reader, producer, read_topic
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.settings import Settings
from tailrace.backends.telemetry import Metrics
from tailrace.backends.topics import apply
from tailrace.contracts.records import WATERMARK_HEADER, LabelledPrediction, Prediction
from tailrace.contracts.topics import Topics
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

S = 1_000
START_MS = 20_000 * 86_400 * S
WALL_MS = START_MS + 4_000 * 86_400 * S
PATIENCE_S = 30.0
MODULE = """
import tailrace as tr


class Offer(tr.Event):
    offer_id: str
    customer: str
    at_ms: int


class Report(tr.Event):
    offer_id: str
    value: float
    at_ms: int
    revision: int = 0
    withdrawn: bool = False


class Click(tr.Event):
    offer_id: str
    clicked: bool
    at_ms: int


class Order(tr.Event):
    order_id: str
    offer_id: str
    customer: str
    amount: float
    at_ms: int
    revision: int = 0
    withdrawn: bool = False


class Life(tr.Event):
    customer: str
    at_ms: int
    churned: bool | None = None
    moved_away: bool = False


offers = tr.Topic("{name}-offers", Offer, key="customer", event_time="at_ms")
reports = tr.Topic("{name}-reports", Report, key="offer_id", event_time="at_ms", lateness="10s")
clicks = tr.Topic("{name}-clicks", Click, key="offer_id", event_time="at_ms", lateness="10s")
orders = tr.Topic("{name}-orders", Order, key="order_id", event_time="at_ms", lateness="10s")
lives = tr.Topic("{name}-lives", Life, key="customer", event_time="at_ms", lateness="10s")
worth = dict(outcome_id="order_id", revision="revision", retract="withdrawn", corrected_within="1000s")
usecase = tr.UseCase(
    name="{name}",
    requests=offers,
    prediction_id="offer_id",
    features=[tr.Field("at_ms")],
    label=tr.Label(
        reports,
        on="offer_id",
        value="value",
        matures_after="100s",
        corrected_within="1000s",
        revision="revision",
        retract="withdrawn",
    ),
    auxiliary_labels=[
        tr.Label(clicks, on="offer_id", value="clicked", matures_after="10s", corrected_within="1000s"),
        tr.Label(orders, name="bought", on="offer_id", value="amount", matures_after="50s", reduce="any", **worth),
        tr.Label(orders, name="revenue", on="offer_id", value="amount", matures_after="100s", reduce="sum", **worth),
        tr.Label(orders, name="largest", on="offer_id", value="amount", matures_after="100s", reduce="max", **worth),
        tr.Label(orders, name="newest", on="offer_id", value="amount", matures_after="100s", reduce="last", **worth),
        tr.Label(
            orders, name="credit", on="customer", entity="customer", value="amount", matures_after="100s",
            reduce="sum", attribution="linear", **worth,
        ),
        tr.Label(
            orders, name="last_touch", on="customer", entity="customer", value="amount", matures_after="100s",
            reduce="sum", attribution="last_touch", **worth,
        ),
        tr.Label(
            orders, name="first_touch", on="customer", entity="customer", value="amount", matures_after="100s",
            reduce="sum", attribution="first_touch", **worth,
        ),
        tr.Label(
            lives, on="customer", entity="customer", value="churned", matures_after="100s",
            corrected_within="1000s", reduce="any", left="moved_away",
        ),
    ],
    model=tr.Binary(on_failure=tr.Default(0.02)),
)
"""


def use_case(folder: Path, name: str) -> UseCase:
    """A shop's offers: what was reported, clicked, bought and lost."""
    (folder / name).mkdir(parents=True)
    (folder / name / "usecase.py").write_text(MODULE.replace("{name}", name))
    return load_use_case(folder, name)


class Step(msgspec.Struct, frozen=True):
    """Records of a topic, which go by the last word of its name; a `None` record states the watermark `at_s`."""

    topic: str
    at_s: int
    record: dict[str, Any] | None = None


class Driver(Protocol):
    """Feedback that takes records."""

    use_case: UseCase

    def send(self, records: Sequence[tuple[str, bytes | None, list[tuple[str, bytes]]]]) -> None:
        """Sends (topic, value, headers) and waits until they are processed."""

    def read(self, topic: str) -> Iterable[tuple[bytes | None, bytes | None]]:
        """Keys and values a topic holds."""


class MemoryFeedback:
    """Feedback without Kafka.

    Args:
        declared: Its use case.
        killed: Whether the worker is killed after every step, to go on from its changelog.
    """

    def __init__(self, declared: UseCase, *, killed: bool = False) -> None:
        self.use_case, self._topics, self._killed = declared, Topics(declared.name), killed
        self._outputs: list[Output] = []
        self._changelog: dict[bytes, bytes | None] = {}
        self._offset = 0
        self._start()

    def _start(self) -> None:
        changelog = list(self._changelog.items())
        self.processor = FeedbackProcessor(self.use_case, lambda: changelog, lambda: None, Metrics(self.use_case.name))
        self.processor.assigned([Assigned(name, 0, -1, "") for name in _sources(self.use_case)])

    def send(self, records: Sequence[tuple[str, bytes | None, list[tuple[str, bytes]]]]) -> None:
        batch = []
        for topic, value, headers in records:
            self._offset += 1
            batch.append(Message(topic, 0, self._offset, WALL_MS, b"k", value, headers))
        for output in self.processor.process(batch, WALL_MS):
            if output.topic == self._topics.feedback_changelog:
                self._changelog[output.key or b""] = output.value
            else:
                self._outputs.append(output)
        if self._killed:
            self._start()

    def read(self, topic: str) -> Iterable[tuple[bytes | None, bytes | None]]:
        return [(o.key, o.value) for o in self._outputs if o.topic == topic]


class KafkaFeedback:
    """Feedback on a broker, by the loop that the service runs.

    Args:
        settings: Where the broker is.
        declared: Its use case.
    """

    def __init__(self, settings: Settings, declared: UseCase) -> None:
        self.use_case, self._settings, self._topics = declared, settings, Topics(declared.name)
        apply(settings.model_copy(update={"partitions": 1}), declared)
        self._producer, self._beside = producer(settings), ThreadPoolExecutor(1)
        self._reader = group_reader(settings, self._topics.group("feedback"))
        self._sent: Counter[str] = Counter()
        self._start()

    def _start(self) -> None:
        declared = self.use_case
        self._lifecycle = Lifecycle("feedback", declared.name)
        processor = _AtRest(declared, self._changelog, lambda: None, Metrics(declared.name), self._beside)
        group = self._topics.group("feedback")
        self._thread = threading.Thread(
            target=run_transactional,
            args=(self._settings, group, list(_sources(self.use_case)), group, processor, self._lifecycle),
            kwargs={"cut_ms": 5},
        )
        self._thread.start()

    def _changelog(self) -> list[tuple[bytes, bytes | None]]:
        found = read_topic(self._settings, self._topics.feedback_changelog, settled=True)
        return [(m.key or b"", m.value) for m in found]

    def send(self, records: Sequence[tuple[str, bytes | None, list[tuple[str, bytes]]]]) -> None:
        for topic, value, headers in records:
            self._producer.produce(topic, value, b"k", 0, headers=list(headers))
        assert self._producer.flush(PATIENCE_S) == 0
        self._sent.update(topic for topic, _, _ in records)
        deadline = time.monotonic() + PATIENCE_S
        while behind := self._behind({topic for topic, _, _ in records}):
            assert time.monotonic() < deadline, behind
            self._lifecycle.stopping.wait(0.005)

    def _behind(self, topics: Iterable[str]) -> dict[str, int]:
        """Committed offsets that are not behind all that was sent."""
        found = self._reader.committed([TopicPartition(topic, 0) for topic in topics], timeout=10)
        return {at.topic: at.offset for at in found if at.offset < self._sent[at.topic]}

    def restart(self) -> None:
        """Ends the worker as a deploy does, and starts the next one."""
        self._end()
        self._start()

    def stop(self) -> None:
        """Ends the worker; what it did is committed."""
        self._end()
        self._reader.close()

    def _end(self) -> None:
        self._lifecycle.stopping.set()
        self._thread.join(PATIENCE_S)

    def read(self, topic: str) -> Iterable[tuple[bytes | None, bytes | None]]:
        return [(m.key, m.value) for m in read_topic(self._settings, topic)]


class _AtRest(FeedbackProcessor):
    """Feedback whose wall clock stands still behind all events."""

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        return super().process(batch, WALL_MS)


def play(driver: Driver, begin_s: int, row: str, steps: Sequence[Step]) -> None:
    """Plays the steps of a row, whose time 0 is `begin_s`, one after the other."""
    for step in steps:
        driver.send(_records(driver.use_case, begin_s, row, step))


def labels(driver: Driver, row: str) -> dict[tuple[str, str], list[tuple[float | None, str, int]]]:
    """What was said of the predictions of a row: (label, status, version), by prediction and label."""
    found: dict[tuple[str, str], list[tuple[float | None, str, int]]] = {}
    for key, value in driver.read(Topics(driver.use_case.name).labels):
        if value is None or not (key or b"").startswith(row.encode() + b"/"):
            continue
        record = msgspec.json.decode(value, type=LabelledPrediction)
        at = (record.prediction_id.partition("/")[2], record.label_name)
        found.setdefault(at, []).append((record.label, record.status, record.label_version))
    return found


def unattributed(driver: Driver, row: str) -> list[tuple[str, str]]:
    """Dead letters of a row that stem from joins: the event or entity, and the reason."""
    letters = driver.read(Topics(driver.use_case.name).dead_letters)
    sides = [msgspec.json.decode(value or b"") for key, value in letters if (key or b"").startswith(f"{row}/".encode())]
    return sorted((side["event_id"].partition("/")[2], side["reason"]) for side in sides)


def _records(
    declared: UseCase, begin_s: int, row: str, step: Step
) -> list[tuple[str, bytes | None, list[tuple[str, bytes]]]]:
    topics = Topics(declared.name)
    at_ms = START_MS + (begin_s + step.at_s) * S
    if step.record is None:
        header = [(WATERMARK_HEADER, str(at_ms).encode())]
        return [(topic, None, header) for topic in _sources(declared) if topic != topics.retraining]
    if step.topic in ("predictions", "shadow"):
        return [(f"{declared.name}.{step.topic}", encode(_prediction(declared, row, at_ms, step.record)), [])]
    ids = {name: f"{row}/{value}" for name, value in step.record.items() if name in ("offer_id", "customer")}
    return [(f"{declared.name}-{step.topic}", encode(step.record | ids | {"at_ms": at_ms}), [])]


def _prediction(declared: UseCase, row: str, at_ms: int, said: dict[str, Any]) -> Prediction:
    event, variant = f"{row}/{said.get('event', 'a')}", said.get("variant", "champion")
    customer = f"{row}/{said.get('customer', 'c')}"
    return prediction(
        declared,
        event,
        at_ms,
        said.get("score", 0.5),
        variant=variant,
        prediction_id=event if variant == "champion" else f"{event}:{variant}",
        key=customer,
        entities={"customer": customer},
        predicted_at_ms=WALL_MS,
        produced_at_ms=WALL_MS,
        activated=said.get("activated", True),
        blocked=said.get("blocked", False),
    )


def _sources(declared: UseCase) -> tuple[str, ...]:
    topics = Topics(declared.name)
    return (topics.predictions, topics.shadow, *(t.name for t in declared.outcome_topics), topics.retraining)
