"""The features service without Kafka."""

from __future__ import annotations

import json

import msgspec

import tailrace.usecase.features as f
from tailrace.backends.ports import Message, Output
from tailrace.contracts.records import DEAD_LETTER_HEADER, WATERMARK_HEADER, FeatureRow, LabelledPrediction
from tailrace.core.windows import evaluate
from tailrace.features.processor import FeatureProcessor
from tailrace.features.runs import OutputRun, Run
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.policies import Binary
from tailrace.usecase.sources import Event, Label, Topic

DAY = 86_400_000
NOW = 400 * DAY


class Payment(Event, frozen=True):
    payment_id: int
    card: str
    terminal: str
    amount: float
    at_ms: int


class Outcome(Event, frozen=True):
    payment_id: int
    fraud: bool
    at_ms: int


PAYMENTS = Topic("payments", Payment, key="card", event_time="at_ms")
LABEL = Label(
    Topic("outcomes", Outcome, key="payment_id", event_time="at_ms"), on="payment_id", value="fraud", matures_after="7d"
)


def use_case() -> UseCase:
    return UseCase(
        name="pay",
        requests=PAYMENTS,
        prediction_id="payment_id",
        features=[
            f.Field("amount"),
            f.IsNight(),
            *f.GroupBy(PAYMENTS, by="card", windows=["1d"]).aggregate(f.Count(), f.Sum("amount"), f.SinceLast()),
            *f.GroupBy(LABEL, by="terminal", windows=["1d"]).aggregate(f.Count(), f.Mean("fraud")),
        ],
        label=LABEL,
        model=Binary(train="pay.train:fit"),
    )


def payment(offset: int, card: str = "a", amount: float = 1.0, at_ms: int = 100 * DAY) -> Message:
    value = json.dumps({"payment_id": offset, "card": card, "terminal": "t", "amount": amount, "at_ms": at_ms})
    return Message("payments", 0, offset, 7, card.encode(), value.encode(), [])


def label(
    offset: int, version: int, value: float | None, reason: str = "outcome", variant: str = "champion"
) -> Message:
    record = LabelledPrediction(
        prediction_id=f"1:{variant}",
        event_id="1",
        use_case="pay",
        label_name="fraud",
        label_version=version,
        label=value,
        status="final",
        reason=reason,  # type: ignore[arg-type]
        event_time_ms=0,
        known_at_ms=1_000 + version,
        outcome_time_ms=None,
        variant=variant,
        model_version="1",
        score=0.5,
        decision=False,
        key="a",
        entities={"card": "a", "terminal": "t"},
        slices={},
    )
    return Message("pay.labels", 0, offset, 7, b"1", msgspec.json.encode(record), [])


def runs(*messages: Message) -> list[Run]:
    """One run per partition, as fetched."""
    found: dict[tuple[str, int], list[Message]] = {}
    for message in messages:
        found.setdefault((message.topic, message.partition), []).append(message)
    return [Run.of(*at, [message[2:] for message in run]) for at, run in found.items()]


def records(outputs: list[OutputRun]) -> list[Output]:
    return [record for run in outputs for record in run.records]


def started(changelog: list[OutputRun] | None = None) -> FeatureProcessor:
    processor = FeatureProcessor(use_case())
    kept = [
        Message(o.topic, o.partition or 0, at, 0, o.key, o.value, []) for at, o in enumerate(records(changelog or []))
    ]
    processor.assigned([("payments", 0), ("pay.labels", 0)], lambda _: kept)
    return processor


def values(outputs: list[OutputRun]) -> list[list[float | None]]:
    return [msgspec.json.decode(o.value or b"", type=FeatureRow).values for o in records(outputs)]


def test_each_event_carries_the_row_as_of_itself() -> None:
    step = started().process(runs(payment(0), payment(1, amount=2.5), payment(2, card="b")), NOW)
    assert [[1.0, 1.0, 1.0, 1.0, None], [2.5, 1.0, 2.0, 3.5, 0.0], [1.0, 1.0, 1.0, 1.0, None]] == values(step.outputs)
    row = msgspec.json.decode(records(step.outputs)[1].value or b"", type=FeatureRow)
    assert ("1", "a", {"card": "a", "terminal": "t"}, 7) == (row.event_id, row.key, row.entities, row.produced_at_ms)
    assert ["a", "b"] == step.rows[0].keys


def test_bad_records_travel_in_their_place_with_the_reason() -> None:
    bad = payment(1)._replace(value=b'{"payment_id": 1')
    ahead = payment(2, at_ms=NOW + DAY)
    step = started().process(runs(payment(0), bad, ahead, payment(3)), NOW)
    assert [0, 1, 1, 0] == [sum(name == DEAD_LETTER_HEADER for name, _ in o.headers) for o in records(step.outputs)]
    assert b'{"payment_id": 1' == records(step.outputs)[1].value
    assert ["not_json", "event_time_ahead"] == step.bad


def test_watermarks_stay_behind_what_they_speak_of() -> None:
    mark = Message("payments", 0, 1, 7, None, None, [(WATERMARK_HEADER, b"5")])
    step = started().process(runs(payment(0), mark, payment(2)), NOW)
    assert [False, True, False] == [o.value is None for o in records(step.outputs)]
    assert [(WATERMARK_HEADER, b"5")] == records(step.outputs)[1].headers


def test_a_restart_continues_and_a_replay_gives_the_same_rows() -> None:
    first = started()
    stream = [payment(at, amount=at / 2) for at in range(6)]
    rows = first.process(runs(*stream[:4]), NOW).outputs
    second = started(first.changelog())
    step = second.process(runs(*stream[2:]), NOW)
    assert 2 == step.duplicates
    assert records(rows)[2:] == records(step.outputs)[:2]
    assert values(started().process(runs(*stream), NOW).outputs)[4:] == values(step.outputs)[2:]


def test_labels_reach_the_row_once_and_a_revision_replaces() -> None:
    processor = started()
    view = use_case().plan.online_views[0]

    def row(*messages: Message) -> list[float]:
        step = processor.process(runs(*messages), NOW)
        return list(step.rows[-1].values[0]) if step.rows else []

    assert [1.0, 1.0] == row(label(0, 1, 1.0))
    assert [] == row(label(0, 1, 1.0), label(1, 1, 1.0, variant="shadow"))
    assert [1.0, 0.0] == row(label(2, 2, 0.0, "correction"))
    assert [0.0, 0.0] == row(label(3, 3, None, "retract"))
    restored = started(processor.changelog())
    written = restored.label_rows()[0]
    assert restored.process(runs(label(3, 3, None, "retract")), NOW).rows == []
    assert ["t"] == written.keys
    assert written.state is not None
    assert [[1.0, 1.0]] == evaluate(view, written.state, written.timestamps_ms - 2).tolist()


def test_a_key_silent_for_longer_than_events_may_be_late_goes_out_of_the_changelog() -> None:
    first, later = started(), 600 * DAY
    first.process(runs(payment(0)), NOW)
    before = first.changelog()
    for at in (1, 2):
        first.process(runs(payment(at, "b", at_ms=later)), later)
    after = first.changelog()
    assert [b"a"] == [(record.key or b"").rpartition(b"\x00")[2] for record in records(after) if record.value is None]
    stream = runs(payment(3, at_ms=later), payment(4, "b", at_ms=later))
    again = started([*before, *after]).process(stream, later).outputs
    assert records(first.process(stream, later).outputs) == records(again)
    assert [1.0, 3.0] == [row[2] for row in values(again)]


def test_a_worker_reads_the_changelog_of_what_it_takes_over_and_of_nothing_else() -> None:
    asked: list[set[int] | None] = []

    def changelog(numbers: set[int] | None) -> list[Message]:
        asked.append(numbers)
        return [Message("changelog", number, 0, 0, b"card\x00a", b"of another format", []) for number in (0, 1)]

    processor = FeatureProcessor(use_case())
    processor.assigned([("payments", 3), ("payments", 4)], changelog)
    processor.assigned([("payments", 4), ("payments", 5)], changelog)
    processor.assigned([("payments", 5), ("pay.labels", 0)], changelog)
    processor.assigned([("payments", 5)], changelog)
    assert [{3, 4}, {5}, None] == asked
