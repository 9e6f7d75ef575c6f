"""`tailrace demo`: the whole loop on a seeded fraud stream with a planted drift, in a few minutes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from tailrace.backends.codec import BatchDecoder
from tailrace.backends.kafka import read_topic
from tailrace.backends.recordings import to_recording
from tailrace.backends.settings import Settings, load_settings
from tailrace.contracts.records import CandidateRegistered, RetrainRequested
from tailrace.contracts.topics import Topics
from tailrace.local.audit import AuditReport, audit
from tailrace.local.observer import Observer
from tailrace.local.replay import Progress, Replay
from tailrace.local.report import audit_table, decisions_table, figure, live_panel
from tailrace.local.supervisor import Embedded
from tailrace.testing.decisions import champion_of
from tailrace.testing.streams import DAY_MS, START_MS, CardFraudStream
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

USE_CASE = "card_fraud"
PACED_S = 10.0
"""Wall time in which the last stream day is played by timetable, to measure latency. At full speed a
whole day arrives at once, and latency would be the length of the queue."""
RECOVERED = 0.5
"""Share of the log loss that the drift cost which the new model must win back for the loop to count as closed."""


class Phase(msgspec.Struct, frozen=True):
    """Accuracy of one version in one part of the stream."""

    name: str
    version: str
    metrics: dict[str, float | None]


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a demo. Latencies in milliseconds, of the part that was played by timetable."""

    seed: int
    events: int
    predictions: int
    p50_ms: float | None
    p99_ms: float | None
    phases: list[Phase]
    decisions: list[dict[str, str]]
    decisions_hash: str
    audit: AuditReport
    missing: list[str]
    took_s: float

    @property
    def closed(self) -> bool:
        """Whether the loop closed and the audit is clean."""
        return not self.missing and self.audit.clean


class _Latency(msgspec.Struct, frozen=True):
    event_time_ms: int
    produced_at_ms: int
    predicted_at_ms: int


def run_demo(*, seed: int = 7, keep: bool = False, as_json: bool = False, directory: Path | None = None) -> int:
    """Runs the demo and prints its result.

    Args:
        seed: Seed of the stream.
        keep: Leave everything running until interrupted, and print the addresses.
        as_json: Print the result as JSON instead of tables.
        directory: Folder for all state; None for a temporary one that is removed afterwards.

    Returns:
        Exit code: 0 when the loop closed and the audit is clean, else 1.
    """
    console = Console(stderr=as_json)
    settings = load_settings()
    use_case = load_use_case(settings.use_cases, USE_CASE)
    with _state(directory, keep=keep) as state:
        console.print(f"[dim]starting Kafka, Redis and the services; state and logs in {state}[/]")
        embedded = Embedded(state, settings=settings)
        try:
            embedded.start([USE_CASE])
            result, seen = _run(embedded.settings, use_case, seed, console, embedded.check)
            if as_json:
                print(msgspec.json.encode(result).decode())  # noqa: T201  # the command's output
            console.print(_final(result, seen))
            if keep:
                _linger(embedded.addresses(), console)
        finally:
            embedded.stop()
    return 0 if result.closed else 1


def _run(
    settings: Settings, use_case: UseCase, seed: int, console: Console, check: Callable[[], None]
) -> tuple[DemoResult, Observer]:
    began = time.monotonic()
    stream = CardFraudStream(seed=seed)
    events, outcomes = stream.tables()
    seen = Observer(settings, use_case.name)
    progress = Progress(START_MS, 0, 0, len(events), 0.0, "")
    shown_at = 0.0
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def look() -> None:
            nonlocal shown_at
            check()
            seen.poll()
            if time.monotonic() - shown_at > 0.25:
                shown_at = time.monotonic()
                live.update(live_panel(progress, seen, stream.drift_ms))

        def moved(now: Progress) -> None:
            nonlocal progress
            progress = now
            look()

        recordings = to_recording(events, use_case.requests), to_recording(outcomes, use_case.label.topic)
        replay = Replay(settings, use_case, *recordings, keep_going=look)
        last_day_ms = START_MS + (stream.days - 1) * DAY_MS
        replay.play(DAY_MS, until_ms=last_day_ms, on_progress=moved)
        # Judged here: what follows has no watermarks, so that nothing is decided in it.
        replay.play_timed(
            DAY_MS / 1_000 / PACED_S, from_ms=last_day_ms, until_ms=last_day_ms + DAY_MS, on_progress=moved
        )
        replay.settle()
        seen.poll(1.0)
    replay.close()
    seen.close()
    report = audit(settings, use_case)
    p50_ms, p99_ms = _latency(settings, use_case, last_day_ms)
    phases = _phases(seen, stream, last_day_ms)
    return DemoResult(
        seed=seed,
        events=report.events,
        predictions=report.predictions,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        phases=phases,
        decisions=seen.decisions(),
        decisions_hash=seen.decisions_hash(),
        audit=report,
        missing=_missing(seen, stream, phases),
        took_s=round(time.monotonic() - began, 1),
    ), seen


def _promotions(seen: Observer, drift_ms: int) -> list[int]:
    """Stream times at which models that were asked for because of the drift became champion."""
    asked = {
        record.run_id
        for record in seen.retraining
        if isinstance(record, RetrainRequested)
        and record.trigger in ("drift", "metric_drop")
        and record.requested_at_ms >= drift_ms
    }
    candidates = {
        record.model_version
        for record in seen.retraining
        if isinstance(record, CandidateRegistered) and record.run_id in asked
    }
    first: dict[str, int] = {}
    for table in seen.tables:
        if champion_of(table) in candidates:
            first.setdefault(champion_of(table), table.decided_at_ms)
    return sorted(first.values())


def _phases(seen: Observer, stream: CardFraudStream, end_ms: int) -> list[Phase]:
    """Accuracy before, during and after the drift.

    A first candidate may know too little of the new pattern: the drift counts as over at the first
    promotion behind which accuracy has recovered, else at the last.
    """
    phases: list[Phase] = []
    for promoted_ms in _promotions(seen, stream.drift_ms) or [end_ms]:
        new_ms = min(-(-promoted_ms // DAY_MS) * DAY_MS, end_ms)
        spans = (("before", START_MS, stream.drift_ms), ("during", stream.drift_ms, new_ms), ("after", new_ms, end_ms))
        phases = [
            Phase(name, version, metrics)
            for name, begin, end in spans
            for version, metrics in seen.accuracy(begin, end).items()
        ]
        if not _not_recovered(phases):
            break
    return phases


def _missing(seen: Observer, stream: CardFraudStream, phases: list[Phase]) -> list[str]:
    """The links of the loop that did not close, in order; empty when it closed."""
    missing = []
    if not any(
        alarm.raised_at_ms >= stream.drift_ms and alarm.kind in ("drift", "metric_drop") for alarm in seen.alarms
    ):
        missing.append("no alarm after the drift")
    if not _promotions(seen, stream.drift_ms):
        return [*missing, "no model that was asked for because of the drift was promoted"]
    return missing + _not_recovered(phases)


def _not_recovered(phases: list[Phase]) -> list[str]:
    before, during, after = (_log_loss(phases, name) for name in ("before", "during", "after"))
    if before is None or during is None or after is None:
        return ["accuracy is not known before, during and after the drift"]
    if during <= before or after > during - RECOVERED * (during - before):
        return [f"log loss did not recover: {before:.4f} before, {during:.4f} during, {after:.4f} after"]
    return []


def _log_loss(phases: list[Phase], name: str) -> float | None:
    """Log loss over the versions that were models: version 0 is the default score."""
    rows = [phase.metrics for phase in phases if phase.name == name and phase.version != "0"]
    weights = [row["labelled"] or 0.0 for row in rows]
    losses = [row["log_loss"] or 0.0 for row in rows]
    return float(np.average(losses, weights=weights)) if sum(weights) else None


def _latency(settings: Settings, use_case: UseCase, from_ms: int) -> tuple[float | None, float | None]:
    decoder = BatchDecoder(_Latency)
    values = [m.value for m in read_topic(settings, Topics(use_case.name).predictions) if m.value is not None]
    found = [one for one in decoder.decode(values) if one.event_time_ms >= from_ms]
    took: NDArray[np.int64] = np.array([one.predicted_at_ms - one.produced_at_ms for one in found], np.int64)
    if not len(took):
        return None, None
    p50, p99 = np.percentile(took, [50, 99])
    return float(p50), float(p99)


def _final(result: DemoResult, seen: Observer) -> RenderableType:
    accuracy = Table("phase", "version", "predictions", "labelled", "log loss", "PR AUC", "F1 (best)", title="accuracy")
    for phase in result.phases:
        row = phase.metrics
        counts = [figure(row[name], 0) for name in ("predictions", "labelled")]
        metrics = [figure(row["log_loss"]), figure(row["pr_auc"], 3), figure(row["f1"], 3)]
        accuracy.add_row(phase.name, "default" if phase.version == "0" else phase.version, *counts, *metrics)
    summary = Table(title="tailrace demo", show_header=False)
    summary.add_row("events", f"{result.events:,}")
    summary.add_row("predictions", f"{result.predictions:,}")
    summary.add_row("end to end, paced", f"p50 {figure(result.p50_ms, 0)} ms, p99 {figure(result.p99_ms, 0)} ms")
    summary.add_row("decisions", f"{len(result.decisions)}, hash {result.decisions_hash}")
    summary.add_row("took", f"{result.took_s:.0f} s")
    closed = "[green]closed[/]" if not result.missing else "[red]open: " + "; ".join(result.missing) + "[/]"
    summary.add_row("loop", closed)
    return Group(decisions_table(seen), accuracy, audit_table(result.audit), summary)


def _linger(addresses: dict[str, str], console: Console) -> None:
    table = Table("what", "address", title="running; Ctrl-C ends it")
    for name, address in addresses.items():
        table.add_row(name, address)
    console.print(table)
    console.print(
        f"open the console with: tailrace console --use-case {USE_CASE} --dir {Path(addresses['logs']).parent}"
    )
    try:
        while True:
            time.sleep(3_600)
    except KeyboardInterrupt:
        return


@contextmanager
def _state(directory: Path | None, *, keep: bool) -> Iterator[Path]:
    if directory is not None:
        yield directory
        return
    made = Path(tempfile.mkdtemp(prefix="tailrace-demo-"))
    try:
        yield made
    finally:
        if not keep:
            shutil.rmtree(made, ignore_errors=True)
