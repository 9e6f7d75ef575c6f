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
from rich.markup import escape
from rich.table import Table

from tailrace.backends.codec import BatchDecoder
from tailrace.backends.kafka import read_topic
from tailrace.backends.recordings import to_recording
from tailrace.backends.settings import Settings, load_settings
from tailrace.contracts.topics import Topics
from tailrace.local.audit import AuditReport, audit
from tailrace.local.observer import Observer
from tailrace.local.replay import Progress, Replay
from tailrace.local.report import audit_table, decisions_table, figure, live_panel, when
from tailrace.local.supervisor import Embedded
from tailrace.testing.closing import Phase, Stage, closing
from tailrace.testing.decisions import NO_MODEL
from tailrace.testing.streams import DAY_MS, START_MS, CardFraudStream
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

USE_CASE = "card_fraud"
PACED_S = 10.0
"""Wall time in which the last stream day is played by timetable, to measure latency. At full speed a
whole day arrives at once, and latency would be the length of the queue."""


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a demo. Latencies in milliseconds, of the part that was played by timetable."""

    seed: int
    events: int
    predictions: int
    p50_ms: float | None
    p99_ms: float | None
    stages: list[Stage]
    phases: list[Phase]
    decisions: list[dict[str, str]]
    decisions_hash: str
    audit: AuditReport
    missing: list[str]
    took_s: float

    @property
    def open(self) -> list[str]:
        """Why the demo has failed: what keeps the loop from being closed, then what its audit found; else empty."""
        found = [f"{finding.check}: {finding.count} {finding.problem}" for finding in self.audit.findings]
        return self.missing + found


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
    stream = CardFraudStream(seed=seed)
    with _state(directory, keep=keep) as state:
        console.print(f"[dim]starting Kafka, Redis and the services; state and logs in {state}[/]")
        embedded = Embedded(state, settings=settings)
        try:
            embedded.start([USE_CASE])
            with Live(console=console, refresh_per_second=4, transient=True) as live:
                shown = _Shown(live, stream.drift_ms)
                result, seen = play_demo(embedded.settings, use_case, stream, look=embedded.check, show=shown.update)
            if as_json:
                print(msgspec.json.encode(result).decode())  # noqa: T201  # the command's output
            console.print(_final(result, seen))
            for reason in result.open:
                console.print(f"[red]the demo failed:[/] {escape(reason)}", soft_wrap=True)
            if keep:
                _linger(embedded.addresses(), console)
        finally:
            embedded.stop()
    return 1 if result.open else 0


def play_demo(
    settings: Settings,
    use_case: UseCase,
    stream: CardFraudStream,
    *,
    look: Callable[[], None],
    show: Callable[[Progress, Observer], None] = lambda _, __: None,
) -> tuple[DemoResult, Observer]:
    """Plays the demo into services that run, and judges what came of it.

    Args:
        settings: Address of the broker.
        use_case: What the services serve.
        stream: What is played: a day at a time, and the last by timetable.
        look: Called now and then; raises to give up.
        show: Called now and then with where the replay is and what has been decided.
    """
    began = time.monotonic()
    events, outcomes = stream.tables()
    seen = Observer(settings, use_case.name)
    progress = Progress(START_MS, 0, 0, len(events), 0.0, "")

    def keep_going() -> None:
        look()
        seen.poll()
        show(progress, seen)

    def moved(now: Progress) -> None:
        nonlocal progress
        progress = now
        keep_going()

    recordings = to_recording(events, use_case.requests), to_recording(outcomes, use_case.label.topic)
    replay = Replay(settings, use_case, *recordings, keep_going=keep_going)
    end_ms = last_day_ms(stream)
    replay.play(DAY_MS, until_ms=end_ms, on_progress=moved)
    # Judged until here: what follows has no watermarks, so that nothing is decided in it.
    replay.play_timed(DAY_MS / 1_000 / PACED_S, from_ms=end_ms, until_ms=end_ms + DAY_MS, on_progress=moved)
    replay.settle()
    seen.poll(1.0)
    replay.close()
    seen.close()
    return _judged(settings, use_case, stream, seen, time.monotonic() - began), seen


def last_day_ms(stream: CardFraudStream) -> int:
    """Begin of the last day, which is played by timetable, epoch milliseconds."""
    return START_MS + (stream.days - 1) * DAY_MS


def _judged(
    settings: Settings, use_case: UseCase, stream: CardFraudStream, seen: Observer, took_s: float
) -> DemoResult:
    report = audit(settings, use_case)
    end_ms = last_day_ms(stream)
    p50_ms, p99_ms = _latency(settings, use_case, end_ms)
    closed = closing(seen, begin_ms=START_MS, drift_ms=stream.drift_ms, end_ms=end_ms)
    return DemoResult(
        seed=stream.seed,
        events=report.events,
        predictions=report.predictions,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        stages=closed.stages,
        phases=closed.phases,
        decisions=seen.decisions(),
        decisions_hash=seen.decisions_hash(),
        audit=report,
        missing=closed.missing,
        took_s=round(took_s, 1),
    )


class _Shown:
    """What the terminal shows while the demo plays, a few times a second."""

    def __init__(self, live: Live, drift_ms: int) -> None:
        self._live, self._drift_ms = live, drift_ms
        self._shown_at = 0.0

    def update(self, progress: Progress, seen: Observer) -> None:
        if time.monotonic() - self._shown_at > 0.25:
            self._shown_at = time.monotonic()
            self._live.update(live_panel(progress, seen, self._drift_ms))


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
    stages = Table("the loop", "first at", "version", title="stages")
    for stage in result.stages:
        at = "[red]never[/]" if stage.at_ms is None else when(stage.at_ms)
        stages.add_row(stage.name, at, stage.model or "-")
    accuracy = Table("phase", "version", "predictions", "labelled", "log loss", "PR AUC", "F1 (best)", title="accuracy")
    for phase in result.phases:
        row = phase.metrics
        counts = [figure(row[name], 0) for name in ("predictions", "labelled")]
        metrics = [figure(row["log_loss"]), figure(row["pr_auc"], 3), figure(row["f1"], 3)]
        accuracy.add_row(phase.name, "default" if phase.version == NO_MODEL else phase.version, *counts, *metrics)
    summary = Table(title="tailrace demo", show_header=False)
    summary.add_row("events", f"{result.events:,}")
    summary.add_row("predictions", f"{result.predictions:,}")
    summary.add_row("end to end, paced", f"p50 {figure(result.p50_ms, 0)} ms, p99 {figure(result.p99_ms, 0)} ms")
    summary.add_row("decisions", f"{len(result.decisions)}, hash {result.decisions_hash}")
    summary.add_row("took", f"{result.took_s:.0f} s")
    summary.add_row("loop", "[red]open[/]" if result.missing else "[green]closed[/]")
    return Group(decisions_table(seen), stages, accuracy, audit_table(result.audit), summary)


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
