"""`tailrace simulate`: the loop in one process, with faults, held to expectations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tailrace.backends.recordings import read_recording
from tailrace.backends.settings import load_settings
from tailrace.local.report import decisions_table, figure, when
from tailrace.testing.decisions import Decision
from tailrace.testing.faults import read_fault
from tailrace.testing.scenario import AnyExpectation, Scenario, read_expectation, read_scenario
from tailrace.testing.simulation import Simulation
from tailrace.testing.simulator import Progress, simulate
from tailrace.usecase.load import load_stream, load_use_case


class Judged(msgspec.Struct, frozen=True):
    """An expectation and what became of it."""

    expectation: str
    holds: bool
    why: str


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. `accuracy` is by version, over the whole stream."""

    use_case: str
    seed: int
    log_hash: str
    counts: dict[str, int]
    decisions: list[Decision]
    accuracy: dict[str, dict[str, float | None]]
    expectations: list[Judged]
    took_s: float


def run_simulation(
    name: str,
    *,
    recorded: tuple[Path, Path] | None,
    days: int,
    seed: int,
    faults: Sequence[str],
    expect: Sequence[str],
    scenario: Path | None,
    step: str,
    as_json: bool,
) -> int:
    """Simulates and prints what came of it; see `tailrace simulate --help` for the arguments.

    Returns:
        Exit code: 0 when every expectation is met, else 1.

    Raises:
        ConfigError: a fault, an expectation or the scenario is wrong.
        UseCaseError: the use case, its stream or a recording is.
    """
    began = time.monotonic()
    console = Console(stderr=as_json)
    settings = load_settings()
    use_case = load_use_case(settings.use_cases, name)
    asked = read_scenario(scenario) if scenario is not None else Scenario()
    asked = Scenario([*asked.faults, *map(read_fault, faults)], [*asked.expect, *map(read_expectation, expect)])
    asked.check()
    if recorded is None:
        events, outcomes = load_stream(settings.use_cases, name)(seed, days)
    else:
        events = read_recording(recorded[0], use_case.requests)
        outcomes = read_recording(recorded[1], use_case.label.topic)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=len(events))

        def show(now: Progress) -> None:
            text = f"{when(now.stream_ms)}  champion {now.champion or '-'}"
            bar.update(task, completed=now.events, total=now.events_total, description=text)

        loop = simulate(
            use_case, events, outcomes, faults=asked.faults, seed=seed, step=step, settings=settings, on_progress=show
        )
    judged = [_judged(expectation, loop) for expectation in asked.expect]
    if as_json:
        result = _result(loop, name, seed, judged, time.monotonic() - began)
        print(msgspec.json.encode(result).decode())  # noqa: T201  # the command's output
    else:
        _show(console, loop, judged, time.monotonic() - began)
    return 0 if all(one.holds for one in judged) else 1


def _judged(expectation: AnyExpectation, loop: Simulation) -> Judged:
    verdict = expectation.judge(loop)
    return Judged(repr(expectation), verdict.holds, verdict.why)


def _result(loop: Simulation, name: str, seed: int, judged: list[Judged], took_s: float) -> SimulationResult:
    return SimulationResult(
        use_case=name,
        seed=seed,
        log_hash=loop.log_hash(),
        counts=loop.counts._asdict(),
        decisions=loop.log(),
        accuracy=loop.accuracy(loop.begin_ms, loop.end_ms),
        expectations=judged,
        took_s=round(took_s, 1),
    )


def _show(console: Console, loop: Simulation, judged: list[Judged], took_s: float) -> None:
    console.print(decisions_table(loop))
    rows = loop.accuracy(loop.begin_ms, loop.end_ms)
    names = ("mae", "rmse") if any("mae" in row for row in rows.values()) else ("log_loss", "pr_auc")
    spoken = {"log_loss": "log loss", "pr_auc": "PR AUC", "mae": "MAE", "rmse": "RMSE"}
    accuracy = Table("version", "predictions", "labelled", *(spoken[name] for name in names), title="accuracy")
    for version, row in rows.items():
        counts = [figure(row[name], 0) for name in ("predictions", "labelled")]
        accuracy.add_row(version, *counts, *(figure(row[name]) for name in names))
    console.print(accuracy)
    for one in judged:
        verdict = "[green]met[/]    " if one.holds else "[red]not met[/]"
        console.print(f"{verdict} {escape(one.expectation)}: {escape(one.why)}", soft_wrap=True, highlight=False)
    rate = loop.counts.events / max(took_s, 1e-9)
    console.print(f"{loop.counts.events:,} events in {took_s:.1f} s ({rate:,.0f}/s), log hash {loop.log_hash()}")
