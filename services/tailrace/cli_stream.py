"""Commands that play streams through a use case and judge the result: replay, audit, demo, simulate."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tailrace.backends.settings import load_settings
from tailrace.core.durations import milliseconds
from tailrace.errors import ConfigError
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case
from tailrace.usecase.sources import Topic

app = typer.Typer(no_args_is_help=True)

Directory = Annotated[Path | None, typer.Option("--dir", help="Folder of an embedded system.")]
UseCaseName = Annotated[str, typer.Option("--use-case", help="Name of the use case, its folder.")]


@app.command()
def replay(
    events: Annotated[Path, typer.Argument(help="Events: .parquet, .csv or .jsonl.")],
    outcomes: Annotated[Path, typer.Argument(help="Outcomes: .parquet, .csv or .jsonl.")],
    use_case: UseCaseName,
    recording: Annotated[
        list[str] | None, typer.Option(help="Outcomes of an auxiliary label, TOPIC=FILE; repeat.")
    ] = None,
    speed: Annotated[str, typer.Option(help="Stream seconds per second, or 'max'.")] = "max",
    slice_: Annotated[str, typer.Option("--slice", help="Stream time sent at once at speed max.")] = "1d",
    wait_for_training: Annotated[
        bool, typer.Option("--wait-for-training/--no-wait", help="Let a training finish before the next slice.")
    ] = True,
    from_: Annotated[str, typer.Option("--from", help="First date or time to send, UTC.")] = "",
    until: Annotated[str, typer.Option("--until", help="Date or time to stop before, UTC.")] = "",
    directory: Directory = None,
) -> None:
    """Plays recorded events and outcomes into the topics of a running use case, in time order.

    Topics of outcomes without a recording stay silent; their stream time goes on all the same.
    """
    # Imported on use: other commands need neither Arrow nor Kafka.
    from tailrace.backends.recordings import read_recording
    from tailrace.local.replay import Progress as Played
    from tailrace.local.replay import Replay
    from tailrace.local.supervisor import connected

    settings = connected(load_settings(), directory)
    case = load_use_case(settings.use_cases, use_case)
    files = [(events, case.requests), (outcomes, case.label.topic), *_auxiliary(recording or [], case)]
    recordings = [read_recording(path, topic) for path, topic in files]
    console = Console(stderr=True)
    for (path, _), read in zip(files, recordings, strict=True):
        if read.ignored:
            console.print(f"[dim]{path}: columns without a field are left out: {', '.join(read.ignored)}[/]")
    span = {"from_ms": _moment(from_), "until_ms": _moment(until)}
    run = Replay(settings, case, *recordings, wait_for_training=wait_for_training)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=len(recordings[0]))

        def show(now: Played) -> None:
            rate = now.events / max(now.elapsed_s, 1e-9)
            date = datetime.fromtimestamp(now.stream_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
            text = f"{date}  {rate:,.0f} events/s  champion {now.champion or '-'}"
            bar.update(task, completed=now.events, description=text)

        if speed == "max":
            done = run.play(milliseconds(slice_), on_progress=show, **span)
        else:
            done = run.play_timed(_factor(speed), on_progress=show, **span)
        show(done)
    run.close()
    console.print(f"{done.events:,} events and {done.outcomes:,} outcomes in {done.elapsed_s:,.1f} s")


@app.command()
def audit(
    use_case: UseCaseName,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    directory: Directory = None,
) -> None:
    """Recounts the guarantees from the topics alone; exit code 1 on any hole, double or mismatch."""
    from tailrace.local.audit import audit as recount
    from tailrace.local.supervisor import connected

    settings = connected(load_settings(), directory)
    report = recount(settings, load_use_case(settings.use_cases, use_case))
    if json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        from tailrace.local.report import audit_table

        Console().print(audit_table(report))
    raise typer.Exit(0 if report.clean else 1)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of the stream; the same seed gives the same decisions.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and show the addresses.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    directory: Annotated[Path | None, typer.Option("--dir", help="Folder for all state; default: a new one.")] = None,
) -> None:
    """Plays a seeded fraud stream with a planted drift; exit code 0 when the loop closed and the audit is clean."""
    from tailrace.local.demo import run_demo

    raise typer.Exit(run_demo(seed=seed, keep=keep, as_json=json, directory=directory))


@app.command()
def simulate(
    name: Annotated[str, typer.Argument(metavar="USE_CASE", help="Name of the use case, its folder.")],
    events: Annotated[Path | None, typer.Option(help="Recorded events; without, the folder's stream.py.")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Recorded outcomes: .parquet, .csv or .jsonl.")] = None,
    days: Annotated[int, typer.Option(help="Length of the synthetic stream.")] = 30,
    seed: Annotated[int, typer.Option(help="Of the synthetic stream and the faults; same seed, same log hash.")] = 7,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault", "--drift", help="'ConceptShift at=20d share=0.5', 'Crash service=feedback at=3d' …; repeat."
        ),
    ] = None,
    expect: Annotated[
        list[str] | None, typer.Option(help="'Detects drift=ConceptShift within=3d', 'StaysQuiet' …; repeat.")
    ] = None,
    scenario: Annotated[Path | None, typer.Option(help="YAML file with lists `faults` and `expect`.")] = None,
    step: Annotated[str, typer.Option(help="Stream time played at once; decisions fall at its end.")] = "1h",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Runs the whole loop in this process on virtual time; exit code 1 where an expectation is not met.

    Needs neither Kafka nor Redis. Types of faults and expectations, with their fields: docs/simulator.md.
    """
    from tailrace.local.simulate import run_simulation

    given = (events, outcomes) if events is not None and outcomes is not None else None
    if given is None and (events or outcomes):
        raise ConfigError("--events and --outcomes belong together")
    raise typer.Exit(
        run_simulation(
            name,
            recorded=given,
            days=days,
            seed=seed,
            faults=fault or [],
            expect=expect or [],
            scenario=scenario,
            step=step,
            as_json=json,
        )
    )


def _auxiliary(given: list[str], case: UseCase) -> list[tuple[Path, Topic]]:
    topics = {topic.name: topic for topic in case.outcome_topics[1:]}
    found = []
    for text in given:
        name, _, path = text.partition("=")
        if name not in topics or not path:
            known = ", ".join(topics) or "none: the use case has no auxiliary labels with a topic of their own"
            raise ConfigError(f"--recording {text!r}: write TOPIC=FILE; topics are {known}")
        found.append((Path(path), topics[name]))
    return found


def _moment(text: str) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no date or time; write it as 2018-05-15 or 2018-05-15T12:00") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise ConfigError(f"--speed {text!r}: write a number above 0, or 'max'")
    return factor
