"""`python -m load_tests list`, `python -m load_tests run <scenario>…` and `python -m load_tests capacity`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from load_tests import results
from load_tests.bench import OURS, Bench, Scenario, load_scenario, run_interleaved, scenario_names, servers
from load_tests.capacity import Load, costs
from load_tests.capacity_page import PAGE, plan_table, rewritten
from tailrace.backends.settings import Settings
from tailrace.errors import TailraceError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Load tests, candidates side by side.")
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


@app.command("list")
def list_scenarios() -> None:
    """List the scenarios and what each of them measures."""
    for name in scenario_names():
        scenario = load_scenario(name)
        typer.echo(f"{name:<18} {scenario.about.splitlines()[0]}")
        typer.echo(f"{'':<18} {', '.join([*scenario.candidates, *scenario.peers])}")


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="As `list` shows them; none: the short set.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds; each runs every candidate once.")] = 5,
    events: Annotated[int, typer.Option(min=0, help="Events of a run; 0: as the scenario says.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="Length of a run with a rate; 0: as the scenario says.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the first round.")] = 7,
    peers: Annotated[bool, typer.Option("--peers", help="Run peers too; one that is not installed is named.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Run ours and this candidate; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, one per line.")] = False,
) -> None:
    """Run scenarios; exit code 1 where a floor is not met."""
    console = Console(stderr=True)
    loaded = [load_scenario(name) for name in names or scenario_names()]
    scenarios = [_chosen(scenario, peers, only) for scenario in loaded if names or scenario.short]
    met = True
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as scratch, servers(Path(scratch)) as settings:
        for number, scenario in enumerate(scenarios, start=1):
            console.print(f"{scenario.name}, {number} of {len(scenarios)}")
            directory = Path(scratch) / scenario.name
            directory.mkdir()
            count = int(60 * minutes * scenario.rate) or events or scenario.events
            result = _measured(scenario, settings, directory, repeat, count, seed, console)
            if only is None:
                console.print(f"[dim]written to {results.write(result, peers=peers)}[/]")
            if json:
                typer.echo(msgspec.json.encode(result))
            else:
                Console().print(results.table(result))
            met = met and result.passed
    raise typer.Exit(0 if met else 1)


@app.command()
def capacity(
    events_per_second: Annotated[float, typer.Option(min=1, help="Events per second.")] = 1e6,
    keys: Annotated[float, typer.Option(min=0, help="Keys with windows.")] = 1e7,
    open_days: Annotated[float, typer.Option(min=0, help="How long a prediction waits for its label, days.")] = 1.0,
    kept_days: Annotated[float, typer.Option(min=0, help="How long topics are kept, days.")] = 3.0,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas of each topic.")] = 3,
    write: Annotated[bool, typer.Option("--write", help="Write docs/capacity.md anew from the results.")] = False,
) -> None:
    """What a load needs, by what was measured."""
    cost = costs()
    if write:
        PAGE.write_text(rewritten(PAGE.read_text(), cost))
        return
    load = Load(
        events_per_second=events_per_second, keys=keys, open_days=open_days, kept_days=kept_days, replicas=replicas
    )
    typer.echo(plan_table(cost, load), nl=False)


def _measured(
    scenario: Scenario, settings: Settings, directory: Path, repeat: int, events: int, seed: int, console: Console
) -> results.Result:
    where = results.machine()
    bench = Bench(settings=settings, directory=directory, seed=seed, events=events)
    with Progress(*COLUMNS, console=console, transient=True) as bar:
        task = bar.add_task(scenario.name, total=repeat * len(scenario.candidates))

        began = time.monotonic()

        def tell(name: str, figure: float | None) -> None:
            nonlocal began
            if figure is None:
                began = time.monotonic()
                bar.update(task, description=f"{scenario.name}: {name}")
            else:
                bar.update(task, advance=1)
                took_s = time.monotonic() - began
                bar.console.print(f"[dim]  {name:<28} {figure:>12,.1f} {scenario.unit}, took {took_s:.0f} s[/]")

        found = run_interleaved(scenario, bench, repeat=repeat, tell=tell)
    return results.result_of(scenario, found, where=where, events=events, repeat=repeat, seed=seed)


def _chosen(scenario: Scenario, peers: bool, only: list[str] | None) -> Scenario:
    """Leaves the candidates that were asked for, and ours."""
    known = scenario.candidates | scenario.peers
    unknown = sorted(set(only or []) - set(known))
    if unknown:
        raise typer.BadParameter(f"{scenario.name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    names = [OURS, *only] if only else known if peers else scenario.candidates
    kept = {name: candidate for name, candidate in known.items() if name in names}
    floors = {name: floor for name, floor in scenario.floors.items() if name in kept}
    return msgspec.structs.replace(scenario, candidates=kept, floors=floors)


def main() -> None:
    """Runs the command line; an error that has a known cause is one line."""
    try:
        app()
    except TailraceError as error:
        Console(stderr=True).print(f"[red]{error}[/]")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
