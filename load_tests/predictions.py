"""Predictions and outcomes of a use case whose attribution window is full: for each event that comes, one matures."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from load_tests import streams, workload
from load_tests.feature_rows import WIDTH
from load_tests.streams import PARTITIONS
from tailrace.backends.codec import encode
from tailrace.backends.settings import Settings
from tailrace.backends.topics import apply
from tailrace.contracts.records import WATERMARK_HEADER, Prediction, Source
from tailrace.contracts.topics import Topics
from tailrace.core.scoring import on_grid
from tailrace.trainer.reference import reference_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

WINDOW_MS = 3 * 86_400_000
LATENESS_MS = 5_000
START_MS = 20_000 * 86_400_000
OUTCOME_SHARE = 0.1
VECTORS = 512
CARDS = 10_007

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
    card: str
    fraud: bool
    at_ms: int


payments = tr.Topic("{name}.payments", Payment, key="card", event_time="at_ms")
chargebacks = tr.Topic("{name}.chargebacks", Chargeback, key="{outcomes_key}", event_time="at_ms")
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
    parallel_feedback={parallel},
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


def make_use_case(settings: Settings, directory: Path, *, parallel: bool = False) -> UseCase:
    """A use case with topics of its own and a champion that has a reference, so that drift is watched too."""
    use_case, reference = load_offline(directory, parallel=parallel)
    apply(settings.model_copy(update={"partitions": PARTITIONS}), use_case)
    own = settings.model_copy(update={"state_dir": directory})
    workload.promote(own, use_case, reference=reference, metrics={"log_loss": 0.3})
    return use_case


def load_offline(directory: Path, *, parallel: bool = False) -> tuple[UseCase, dict[str, Any]]:
    """A use case of a new name, and what the training data of its champion looked like."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    columns = [f"f{at}" for at in range(WIDTH)]
    (directory / name).mkdir(parents=True)
    text = _MODULE.format(
        name=name,
        fields="\n".join(f"    {column}: float" for column in columns),
        features=", ".join(f'tr.Field("{column}")' for column in columns),
        outcomes_key="card" if parallel else "payment_id",
        parallel=parallel,
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
    topics, outcomes = Topics(use_case.name), use_case.label.topic.name
    encoded = Predictions(use_case, stream)
    made = ((b"c%d" % (at % CARDS), encoded.record(at), partition_of(at)) for at in range(first, end))
    streams.fill(settings, topics.predictions, made)
    from_ms = stream.times_ms[first] if first else 0
    end_ms = int(stream.times_ms[end - 1])
    taken = np.flatnonzero((stream.reported_ms >= from_ms) & (stream.reported_ms < end_ms))
    streams.fill(settings, outcomes, (outcome(stream, at) for at in taken.tolist()))
    for topic in (topics.predictions, outcomes) if last else ():
        marks = [(b"", None, partition) for partition in range(PARTITIONS)]
        streams.fill(settings, topic, marks, headers=[(WATERMARK_HEADER, b"%d" % end_ms)])
    return end - first + len(taken) + (2 * PARTITIONS if last else 0)


def outcome(stream: Stream, at: int) -> streams.Keyed:
    """Outcome `at` of a timetable: key, value and partition."""
    number, reported_ms = int(stream.judged[at]), int(stream.reported_ms[at])
    card = b"c%d" % (number % CARDS)
    value = b'{"payment_id":"p%d","card":"%b","fraud":true,"at_ms":%d}' % (number, card, reported_ms)
    return card, value, partition_of(number)


def partition_of(number: int) -> int:
    """Partition of an event and its outcome: that of its card."""
    return number % CARDS % PARTITIONS


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
        # With the digits that tell a float32 from its neighbours, as `inference` writes it.
        rows = [[float(str(value)) for value in row] for row in _vectors(1)[:VECTORS]]
        self._lists = [[None if at % 9 == 0 else v for at, v in enumerate(row)] for row in rows]

    def record(self, at: int) -> bytes:
        """Prediction of event `at`."""
        score = float(self._stream.scores[at])
        return encode(
            Prediction(
                prediction_id=f"p{at}:champion",
                event_id=f"p{at}",
                use_case=self._use_case.name,
                key=f"c{at % CARDS}",
                entities={"card": f"c{at % CARDS}", "merchant": f"m{at % 997}"},
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
                source=Source(self._use_case.requests.name, partition_of(at), at // PARTITIONS),
                produced_at_ms=int(self._stream.times_ms[at]),
            )
        )


def _vectors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2_000, WIDTH)).astype(np.float32)
