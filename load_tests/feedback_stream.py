"""Predictions and outcomes of a use case whose attribution window is full: for each event that comes, one matures."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailrace.backends.artifacts import write_bundle
from tailrace.backends.codec import encode
from tailrace.backends.kafka import producer
from tailrace.backends.settings import Settings
from tailrace.backends.topics import apply
from tailrace.contracts.records import WATERMARK_HEADER, Prediction, RoutingTable, Source, Variant
from tailrace.contracts.topics import Topics
from tailrace.core.scoring import on_grid
from tailrace.trainer.reference import reference_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

WIDTH = 30
WINDOW_MS = 3 * 86_400_000
LATENESS_MS = 5_000
START_MS = 20_000 * 86_400_000
OUTCOME_SHARE = 0.1
PARTITIONS = 4
VECTORS = 512

_MODULE = """
import tailrace as tr


class Payment(tr.Event):
    payment_id: str
    card: str
    merchant: str
    channel: str
    at_ms: int
{fields}


class Chargeback(tr.Event):
    payment_id: str
    fraud: bool
    at_ms: int


payments = tr.Topic("{name}.payments", Payment, key="card", event_time="at_ms")
chargebacks = tr.Topic("{name}.chargebacks", Chargeback, key="payment_id", event_time="at_ms")
usecase = tr.UseCase(
    name="{name}",
    requests=payments,
    prediction_id="payment_id",
    features=[{features}],
    label=tr.Label(chargebacks, on="payment_id", value="fraud", matures_after="3d", if_absent=False),
    slices=["channel"],
    model=tr.Binary(on_failure=tr.Default(0.02)),
    monitor=[
        tr.metrics.LogLoss("1d", drop=0.05),
        tr.metrics.PRAUC("7d"),
        tr.metrics.ROCAUC("7d"),
        tr.drift.PSI(every="1d"),
        tr.drift.ADWIN("log_loss"),
    ],
    retrain=tr.Retrain(on=["drift", "metric_drop"], at_most_every="1d", min_labels=2_000, window="14d"),
)
"""


class Stream(NamedTuple):
    """A timetable: event i happens at `times_ms[i]`; outcome j judges `judged[j]` at `reported_ms[j]`, in time order."""

    times_ms: np.ndarray
    scores: np.ndarray
    judged: np.ndarray
    reported_ms: np.ndarray


def timetable(open_predictions: int, live: int, seed: int) -> Stream:
    """`open_predictions` events fill the window, `live` more follow at the same pace."""
    rng = np.random.default_rng(seed)
    count = open_predictions + live
    times = START_MS + np.arange(count, dtype=np.int64) * WINDOW_MS // open_predictions
    judged = np.flatnonzero(rng.random(count) < OUTCOME_SHARE)
    reported = times[judged] + rng.integers(1, WINDOW_MS, len(judged))
    order = np.argsort(reported, kind="stable")
    return Stream(times, on_grid(rng.beta(1, 8, count).clip(1e-4, 1 - 1e-4)), judged[order], reported[order])


def make_use_case(settings: Settings, directory: Path) -> UseCase:
    """A use case with topics of its own and a champion that has a reference, so that drift is watched too."""
    use_case, reference = load_offline(directory)
    name = use_case.name
    apply(settings.model_copy(update={"partitions": PARTITIONS}), use_case)
    bundle = directory / f"{name}-bundle"
    digest = write_bundle(
        bundle, model=b"", runtime="onnx", plan=use_case.plan, reference=reference, metrics={"log_loss": 0.3}
    )
    champion = Variant(
        name="champion", role="champion", model_version="1", bundle_uri=bundle.as_uri(), digest=digest, share=1.0
    )
    table = RoutingTable(use_case=name, epoch=1, decided_at_ms=0, reason="bench", salt="s", variants=[champion])
    writer = producer(settings)
    writer.produce(Topics(name).control, encode(table), name.encode(), partition=0)
    writer.flush()
    return use_case


def load_offline(directory: Path) -> tuple[UseCase, dict[str, Any]]:
    """A use case of a new name, and what the training data of its champion looked like."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    columns = [f"f{at}" for at in range(WIDTH)]
    (directory / name).mkdir(parents=True)
    text = _MODULE.format(
        name=name,
        fields="\n".join(f"    {column}: float" for column in columns),
        features=", ".join(f'tr.Field("{column}")' for column in columns),
    )
    (directory / name / "usecase.py").write_text(text)
    use_case = load_use_case(directory, name)
    scores = on_grid(np.random.default_rng(0).beta(1, 8, 2_000).clip(1e-4, 1 - 1e-4))
    return use_case, reference_of(use_case.plan, _vectors(0), scores)


def send(settings: Settings, use_case: UseCase, stream: Stream, first: int, end: int, *, last: bool) -> int:
    """Sends events first..end and the outcomes that are reported meanwhile; gives the number of records.

    Args:
        settings: Where the broker is.
        use_case: Names the topics.
        stream: The timetable.
        first: First event.
        end: Event behind the last.
        last: Whether to state the watermark behind them, so that everything that is due matures.
    """
    topics, writer = Topics(use_case.name), producer(settings, **{"linger.ms": 50, "batch.num.messages": 10_000})
    outcomes = use_case.label.topic.name
    predictions = Predictions(use_case, stream)
    for at in range(first, end):
        _put(writer, topics.predictions, predictions.record(at), b"c%d" % (at % 10_007), at % PARTITIONS)
    from_ms = stream.times_ms[first] if first else 0
    end_ms = int(stream.times_ms[end - 1])
    taken = np.flatnonzero((stream.reported_ms >= from_ms) & (stream.reported_ms < end_ms))
    for number, reported_ms in zip(stream.judged[taken].tolist(), stream.reported_ms[taken].tolist(), strict=True):
        value = b'{"payment_id":"p%d","fraud":true,"at_ms":%d}' % (number, reported_ms)
        _put(writer, outcomes, value, b"p%d" % number, number % PARTITIONS)
    marks = [(WATERMARK_HEADER, b"%d" % end_ms)] if last else []
    for partition in range(PARTITIONS) if last else ():
        for topic in (topics.predictions, outcomes):
            writer.produce(topic, None, b"", headers=marks, partition=partition)
    writer.flush()
    return end - first + len(taken) + (2 * PARTITIONS if last else 0)


def matured(stream: Stream, end: int) -> int:
    """Predictions whose label is final once the watermark stands at event `end` - 1."""
    due = stream.times_ms[:end] + WINDOW_MS + LATENESS_MS <= stream.times_ms[end - 1]
    return int(due.sum())


class Predictions:
    """Encodes the predictions of a timetable as `inference` does.

    Args:
        use_case: Whose predictions.
        stream: The timetable.
    """

    def __init__(self, use_case: UseCase, stream: Stream) -> None:
        self._use_case = use_case
        self._stream = stream
        self._vectors = _vectors(1)[:VECTORS].astype(np.float64)
        self._lists = [[None if at % 9 == 0 else v for at, v in enumerate(row)] for row in self._vectors.tolist()]

    def record(self, at: int) -> bytes:
        """Prediction of event `at`."""
        score = float(self._stream.scores[at])
        return encode(
            Prediction(
                prediction_id=f"p{at}:champion",
                event_id=f"p{at}",
                use_case=self._use_case.name,
                key=f"c{at % 10_007}",
                entities={"card": f"c{at % 10_007}", "merchant": f"m{at % 997}"},
                slices={"channel": ("web", "pos", "atm")[at % 3]},
                event_time_ms=int(self._stream.times_ms[at]),
                predicted_at_ms=int(self._stream.times_ms[at]) + 20,
                variant="champion",
                model_version="1",
                model_digest="sha256:" + "0" * 64,
                epoch=1,
                score=score,
                decision=score >= 0.5,
                threshold=0.5,
                propensity=1.0,
                features=self._lists[at % VECTORS],
                ages_ms={"merchant_labels": at % 1_000},
                fingerprint=self._use_case.plan.fingerprint,
                degraded=[],
                source=Source(self._use_case.requests.name, at % PARTITIONS, at // PARTITIONS),
                produced_at_ms=int(self._stream.times_ms[at]),
            )
        )


def _vectors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2_000, WIDTH)).astype(np.float32)


def _put(writer: object, topic: str, value: bytes, key: bytes, partition: int) -> None:
    while True:
        try:
            writer.produce(topic, value, key, partition=partition)  # type: ignore[attr-defined]
            return
        except BufferError:
            writer.poll(0.1)  # type: ignore[attr-defined]
