"""The join on a real broker against a group-by of pandas: every final label equal, whoever was killed on the way.

Predictions and outcomes come out of order, twice, early, late, revised and taken back, some outside of their
window and some of events that nobody scored. The feedback service is killed with SIGKILL three times while it
works. Afterwards the final label of every prediction, for a label of one outcome and for a label that sums
several, is compared with what pandas computes from all outcomes at once; versions must be contiguous; and the
counts of QUALITY must be those of the oracle. Outcomes that come days out of order may be taken for lost, by how
the topics happen to be read: then QUALITY must hold all labels but those of the events that feedback says it left out.

    python -m load_tests.studies.join_oracle [--predictions 1000000] [--json]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from load_tests import bench, streams
from load_tests.services import environment, service
from load_tests.studies.report import Figure
from tailrace.backends.codec import BatchDecoder, encode
from tailrace.backends.kafka import admin, committed_offsets, end_offsets, read_topic
from tailrace.backends.settings import Settings
from tailrace.backends.topics import apply
from tailrace.contracts.quality import Quality
from tailrace.contracts.records import WATERMARK_HEADER, Prediction, Source
from tailrace.contracts.topics import Topics
from tailrace.core.lost_outcomes import Span, within
from tailrace.core.scoring import on_grid
from tailrace.feedback.monitor_store import Checkpoint
from tailrace.feedback.store import StateStore
from tailrace.local.processes import Child, spawn
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

PARTITIONS, KILLS, LIMIT_S = 2, 3, 900.0
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START_MS, SPAN_MS = 20_000 * DAY_MS, 10 * DAY_MS
SKEW_MS, CORRECTION_MS = 5_000, 60 * DAY_MS
WINDOWS_MS = {"loss": DAY_MS, "revenue": 2 * DAY_MS}
SHADOWS = 0.1
MODULE = """
import tailrace as tr


class Payment(tr.Event):
    payment_id: str
    card: str
    at_ms: int


class Report(tr.Event):
    payment_id: str
    card: str
    loss: float
    at_ms: int
    revision: int
    withdrawn: bool


class Order(tr.Event):
    payment_id: str
    card: str
    order_id: str
    amount: float
    at_ms: int
    revision: int
    withdrawn: bool


payments = tr.Topic("oracle.payments", Payment, key="card", event_time="at_ms")
reports = tr.Topic("oracle.reports", Report, key="payment_id", event_time="at_ms")
orders = tr.Topic("oracle.orders", Order, key="order_id", event_time="at_ms")
revised = dict(on="payment_id", revision="revision", retract="withdrawn", corrected_within="60d")
usecase = tr.UseCase(
    name="oracle",
    requests=payments,
    prediction_id="payment_id",
    features=[tr.Field("at_ms")],
    label=tr.Label(reports, value="loss", matures_after="1d", **revised),
    auxiliary_labels=[
        tr.Label(
            orders, name="revenue", value="amount", matures_after="2d", outcome_id="order_id", reduce="sum", **revised
        )
    ],
    model=tr.Binary(on_failure=tr.Default(0.02)),
)
"""


class World(NamedTuple):
    """Event times int64 (n,), which events a shadow scored too, and outcomes by label, a row each, in order of arrival."""

    times_ms: np.ndarray
    shadowed: np.ndarray
    arrivals: np.ndarray
    outcomes: dict[str, pd.DataFrame]


class _Said(msgspec.Struct, frozen=True, gc=False):
    prediction_id: str
    label_name: str
    label_version: int
    label: float | None
    status: str


def world(predictions: int, seed: int) -> World:
    """Everything that can befall a join, seeded."""
    rng = np.random.default_rng(seed)
    events = round(predictions / (1 + SHADOWS))
    times = START_MS + np.sort(rng.integers(0, SPAN_MS, events))
    shadowed = np.zeros(events, np.bool_)
    shadowed[rng.choice(events, predictions - events, replace=False)] = True
    arrivals = np.argsort(times + rng.exponential(HOUR_MS / 2, events).astype(np.int64), kind="stable")
    outcomes = {
        name: _outcomes(rng, times, window_ms, ids=3 if name == "revenue" else 1)
        for name, window_ms in WINDOWS_MS.items()
    }
    return World(times, shadowed, arrivals, outcomes)


def _outcomes(rng: np.random.Generator, times: np.ndarray, window_ms: int, ids: int) -> pd.DataFrame:
    event = np.repeat(np.arange(len(times)), rng.choice([0, 0, 0, 1, 1, 2, 3], len(times)))
    n = len(event)
    inside = rng.integers(1, window_ms, n)
    after = np.choose(rng.integers(0, 8, n), [-10_000, -5_000, 1_000, window_ms - 1, window_ms, inside, inside, inside])
    found = pd.DataFrame(
        {
            "event": np.where(rng.random(n) < 0.02, event + len(times), event),
            "id": rng.integers(0, ids, n),
            "revision": rng.integers(0, 3, n),
            "withdrawn": rng.random(n) < 0.15,
            "value": rng.choice([0.0, 1.0, 2.5], n),
            "at_ms": times[event] + after,
        }
    )
    seen_ms = found["at_ms"] + rng.choice([-2 * HOUR_MS, 0, 0, DAY_MS, 4 * DAY_MS], n)
    again = rng.random(n) < 0.1
    both = pd.concat([found.assign(seen_ms=seen_ms), found[again].assign(seen_ms=seen_ms[again] + HOUR_MS)])
    return both.sort_values("seen_ms", kind="stable").drop(columns="seen_ms").reset_index(drop=True)


def oracle(of: World) -> dict[str, np.ndarray]:
    """Final labels of all events, float64 (n,), by label: what all outcomes say at once."""
    ends = {}
    for name, outcomes in of.outcomes.items():
        known = outcomes[outcomes["event"] < len(of.times_ms)]
        start_ms = of.times_ms[known["event"]]
        last_ms = start_ms + WINDOWS_MS[name] + np.where(known["withdrawn"], CORRECTION_MS, 0)
        counts = known[(known["at_ms"] >= start_ms - SKEW_MS) & (known["at_ms"] < last_ms)]
        order = counts.sort_values(["revision", "withdrawn", "value", "at_ms"])
        newest = order.groupby(["event", "id"], sort=False).tail(1)
        live = newest[~newest["withdrawn"]].groupby("event")["value"].sum()
        ends[name] = live.reindex(np.arange(len(of.times_ms)), fill_value=0.0).to_numpy()
    return ends


def fill(
    settings: Settings, declared: UseCase, of: World, partitions: int = PARTITIONS, *, together: bool = False
) -> int:
    """Sends everything, and behind it the watermark at which all windows are closed; gives the number of records.

    Args:
        settings: Where the broker is.
        declared: The use case.
        of: What is sent.
        partitions: Of each topic.
        together: Whether an outcome is sent to the partition of the event that it judges.
    """
    topics, sent = Topics(declared.name), 0
    at = of.arrivals.tolist()
    shadows = [event for event in at if of.shadowed[event]]
    for topic, events, variant in ((topics.predictions, at, "champion"), (topics.shadow, shadows, "shadow")):
        streams.fill(settings, topic, _predictions(of, events, variant, partitions))
        sent += len(events)
    for label, (name, outcomes) in zip(declared.labels, of.outcomes.items(), strict=True):
        streams.fill(settings, label.topic.name, _records(name, outcomes, partitions, together=together))
        sent += len(outcomes)
    mark = [(WATERMARK_HEADER, b"%d" % (START_MS + SPAN_MS + 4 * DAY_MS))]
    for topic in (topics.predictions, topics.shadow, *(topic.name for topic in declared.outcome_topics)):
        streams.fill(settings, topic, [(b"", None, partition) for partition in range(partitions)], headers=mark)
    return sent


def _predictions(of: World, events: list[int], variant: str, partitions: int) -> Iterator[streams.Keyed]:
    like = Prediction(
        prediction_id="", event_id="", use_case="oracle", key="c", entities={"card": "c"}, slices={}, event_time_ms=0,
        predicted_at_ms=START_MS, variant=variant, model_version="1", model_digest="", epoch=1,
        score=float(on_grid(np.array([0.3]))[0]), decision=False, threshold=0.5, propensity=1.0, features=[0.0],
        ages_ms={}, fingerprint="", degraded=[], source=Source("oracle.payments", 0, 0), produced_at_ms=START_MS,
    )  # fmt: skip
    for event in events:
        ids = {"prediction_id": f"{event}:{variant}", "event_id": str(event)}
        made = msgspec.structs.replace(like, **ids, event_time_ms=int(of.times_ms[event]))
        yield b"%d" % event, encode(made), event % partitions


def _records(name: str, outcomes: pd.DataFrame, partitions: int, *, together: bool) -> Iterator[streams.Keyed]:
    value = "loss" if name == "loss" else "amount"
    for row in outcomes.itertuples(index=False):
        said: dict[str, Any] = {
            "payment_id": str(row.event),
            "card": str(row.event),
            value: row.value,
            "at_ms": row.at_ms,
        }
        said |= {"revision": row.revision, "withdrawn": row.withdrawn}
        if name == "revenue":
            said["order_id"] = f"o{row.id}"
        yield b"%d" % row.event, encode(said), (row.event + (0 if together else row.at_ms)) % partitions


def serve(settings: Settings, declared: UseCase, kills: int) -> tuple[float, int]:
    """Runs the service until all is consumed, killed on the way; gives the seconds it took, and how often it was."""
    topics, client, began, killed = Topics(declared.name), admin(settings), time.monotonic(), 0
    names = [topics.predictions, topics.shadow, *(topic.name for topic in declared.outcome_topics)]
    ends = {(name, n): end for name in names for n, end in end_offsets(client, name).items()}
    child = _start(settings, killed)
    try:
        while (done := _done(settings, topics.group("feedback"), names)) < sum(ends.values()):
            if killed < kills and done > killed * sum(ends.values()) / kills:
                child.kill()
                killed += 1
                child = _start(settings, killed)
            if not child.running or time.monotonic() - began > LIMIT_S:
                raise TimeoutError(
                    f"feedback consumed {done} of {sum(ends.values())} records; see {settings.state_dir}"
                )
            time.sleep(0.1)
    finally:
        child.stop(30)
    return time.monotonic() - began, killed


def _start(settings: Settings, number: int) -> Child:
    log = settings.state_dir / "logs" / f"feedback-{number}.log"
    return spawn("feedback", [sys.executable, *service("feedback", "oracle")], log, environment(settings))


def _done(settings: Settings, group: str, names: list[str]) -> int:
    return sum(max(offset, 0) for name in names for offset, _ in committed_offsets(settings, group, name).values())


def published(settings: Settings, declared: UseCase) -> list[Quality]:
    """The newest record of each window."""
    newest = {m.key: m.value for m in read_topic(settings, Topics(declared.name).quality)}
    return [msgspec.json.decode(value, type=Quality) for value in newest.values() if value]


def left_out(settings: Settings, declared: UseCase) -> list[Span]:
    """Events whose outcomes may have been lost, as feedback has kept them."""
    kept = {m.key: m.value for m in read_topic(settings, Topics(declared.name).feedback_changelog) if m.key and m.value}
    if declared.parallel_feedback:
        return msgspec.json.decode(kept[b"monitor"], type=Checkpoint).merged.monitor.lost.suspect
    return StateStore(declared, kept.items).restore().monitor.lost.spans


def compare(settings: Settings, declared: UseCase, of: World) -> list[Figure]:
    """Final labels and versions as published, and counts of windows, against the oracle."""
    topics, truth, quality = Topics(declared.name), oracle(of), published(settings, declared)
    lost = within(left_out(settings, declared), of.times_ms)
    n = len(of.times_ms)
    found = {(name, v): np.full(n, np.nan) for name in truth for v in ("champion", "shadow")}
    versions = {at: np.zeros(n, np.int32) for at in found}
    gaps, decoder, messages = 0, BatchDecoder(_Said), read_topic(settings, topics.labels)
    while chunk := [m.value for m in islice(messages, 50_000)]:
        for said in decoder.decode([value for value in chunk if value is not None]):
            assert isinstance(said, _Said)
            event, _, variant = said.prediction_id.partition(":")
            at, place = (said.label_name, variant), int(event)
            gaps += said.label_version != versions[at][place] + 1
            versions[at][place] = said.label_version
            found[at][place] = said.label if said.status == "final" and said.label is not None else np.nan
    figures = [Figure("versions missing or twice", int(gaps), 0)]
    figures.append(Figure("share of the events that are left out of QUALITY", float(lost.mean()), 0.5))
    for (name, variant), labels in found.items():
        expected = np.where(of.shadowed | (variant == "champion"), truth[name], np.nan)
        wrong = int((~((labels == expected) | (np.isnan(labels) & np.isnan(expected)))).sum())
        figures.append(Figure(f"{name}, {variant}: labels that are not the oracle's", wrong, 0))
        mine = [q for q in quality if q.label_name == name and q.variant == variant]
        counted = [sum(q.predictions for q in mine), sum(q.final for q in mine), sum(sum(q.positives) for q in mine)]
        there = ~np.isnan(expected)
        told = there & ~lost if name == declared.label.name else there
        wanted = [int(there.sum()), int(told.sum()), int((expected[told] > 0).sum())]
        off = sum(abs(a - b) for a, b in zip(counted, wanted, strict=True))
        figures.append(Figure(f"{name}, {variant}: predictions, finals and positives of QUALITY off by", off, 0))
        figures.append(Figure(f"{name}, {variant}: positives", wanted[2]))
    return figures


def study(settings: Settings, folder: Path, predictions: int, seed: int = 0, kills: int = KILLS) -> list[Figure]:
    """Runs everything on a broker."""
    (folder / "oracle").mkdir(parents=True)
    (folder / "oracle" / "usecase.py").write_text(MODULE)
    declared = load_use_case(folder, "oracle")
    own = settings.model_copy(update={"partitions": PARTITIONS, "use_cases": folder})
    apply(own, declared)
    of = world(predictions, seed)
    sent = fill(own, declared, of)
    seconds, killed = serve(own, declared, kills)
    figures = [Figure("predictions", int(len(of.times_ms) + of.shadowed.sum())), Figure("records", sent)]
    figures += [Figure("kills", killed, kills, ">="), Figure("seconds", seconds)]
    return figures + compare(own, declared, of)


def run(study: Callable[[Settings, Path, int], list[Figure]]) -> None:
    """Runs a study as a command on a broker of its own; exit code 1 where a bar is missed."""
    import typer

    def command(
        predictions: int = 1_000_000, as_json: bool = typer.Option(False, "--json", help="Print JSON.")
    ) -> None:
        """Runs the study."""
        with tempfile.TemporaryDirectory() as name, bench.servers(Path(name)) as settings:
            figures = study(settings, Path(name) / "use-cases", predictions)
        rows = [{**figure._asdict(), "met": figure.met} for figure in figures]
        lines = [f"{row['name']:70} {row['value']:12,.6g}  {row['met']}" for row in rows]
        for line in [json.dumps(rows, indent=2)] if as_json else lines:
            print(line)  # noqa: T201  # the result of the command
        sys.exit(0 if all(figure.met for figure in figures) else 1)

    typer.run(command)


if __name__ == "__main__":
    run(study)
