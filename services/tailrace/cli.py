"""The command `tailrace`.

Exit codes: 0 done, 1 failed or found wanting, 2 wrong usage, 78 wrong configuration or declaration.
Heavy modules are imported inside the commands that need them, so that `--help` is quick.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tailrace import cli_access, cli_erasure, cli_models, cli_stream, cli_telemetry, cli_usecase
from tailrace.backends.settings import Settings, load_settings
from tailrace.errors import BrokerUnavailable, ConfigError, TailraceError, UseCaseError

app = typer.Typer(
    no_args_is_help=True,
    help="Closed-loop streaming machine learning on Kafka.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = typer.Typer(no_args_is_help=True, help="Topics of a use case.")
app.add_typer(topics_app, name="topics")
for part in (
    cli_usecase.app,
    cli_models.app,
    cli_stream.app,
    cli_erasure.app,
    cli_telemetry.app,
    cli_access.app,
):
    app.registered_commands.extend(part.registered_commands)
    app.registered_groups.extend(part.registered_groups)

Directory = Annotated[Path | None, typer.Option("--dir", help="Folder of all state; default TAILRACE_STATE_DIR.")]
UseCases = Annotated[list[str] | None, typer.Option("--use-case", help="Use case; repeat for several, none for all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

CONFIG_EXIT = 78


@app.command()
def up(
    use_case: UseCases = None,
    directory: Directory = None,
    detach: Annotated[bool, typer.Option(help="Return once everything is up, and leave it running.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run Kafka, Redis and the services on this machine until interrupted."""
    from tailrace.local.supervisor import Embedded
    from tailrace.local.system_state import running_state
    from tailrace.usecase.load import use_case_names

    settings = load_settings()
    state_dir = directory or settings.state_dir
    names = use_case or use_case_names(settings.use_cases)
    if detach:
        log = state_dir / "logs" / "supervisor.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [word for name in names for word in ("--use-case", name)]
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "tailrace", "up", "--dir", str(state_dir), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while running_state(state_dir) is None:
            if child.poll() is not None:
                raise ConfigError(f"it did not come up: {log.read_text(errors='replace')[-800:]}")
            time.sleep(0.1)
        _say_addresses(Embedded(state_dir, settings=settings).addresses(), as_json=as_json)
        return
    embedded = Embedded(state_dir, settings=settings)
    stop = _stop_on_signals()
    try:
        embedded.start(names)
        _say_addresses(embedded.addresses(), as_json=as_json)
        while not stop:
            embedded.check()
            time.sleep(0.2)
    finally:
        embedded.stop()


@app.command()
def down(directory: Directory = None) -> None:
    """End what `up` started; data stay."""
    import psutil

    from tailrace.local.system_state import running_state

    state_dir = directory or load_settings().state_dir
    state = running_state(state_dir)
    if state is None:
        typer.echo(f"nothing runs in {state_dir}")
        return
    os.kill(state.supervisor_pid, signal.SIGTERM)
    try:
        psutil.Process(state.supervisor_pid).wait(60)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired as error:
        raise TailraceError(
            f"process {state.supervisor_pid} has not ended within 60 s; see {state_dir / 'logs'}"
        ) from error
    typer.echo("ended; data stay in " + str(state_dir))


@app.command()
def status(directory: Directory = None, as_json: AsJson = False) -> None:
    """Show every process that `up` started and the lag of every consumer group; exits with 1 unless all run."""
    from tailrace.local.status import STATUS_COLUMNS, group_lags, look
    from tailrace.local.system_state import running_state

    state_dir = directory or load_settings().state_dir
    state = running_state(state_dir)
    if state is None:
        typer.echo(f"nothing runs in {state_dir}; start it with `tailrace up`")
        raise typer.Exit(1)
    rows = [look(process) for process in state.processes]
    lags, why = {}, ""
    try:
        lags = group_lags(_connected(load_settings(), state_dir), state.use_cases)
    except BrokerUnavailable as error:
        why = str(error)
    if as_json:
        typer.echo(json.dumps({"directory": str(state_dir), "processes": rows, "lag": lags, "lag_unknown": why}))
    else:
        table = Table(*STATUS_COLUMNS)
        for row in rows:
            table.add_row(*(str(row[name]) for name in STATUS_COLUMNS))
        Console().print(table)
        for group, lag in lags.items():
            typer.echo(f"{group}: {'has committed nothing yet' if lag is None else f'lag {lag} record(s)'}")
        if why:
            typer.echo(f"lag unknown: {why}")
    if any(row["state"] != "running" for row in rows):
        raise typer.Exit(1)


@app.command()
def doctor(
    principal: Annotated[
        str,
        typer.Option("--as", help="Service whose rights to look for; else the one the Kafka user's name ends with."),
    ] = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Check Kafka, the online store and the use cases, and name the cause of what is wrong; exits with 78 then."""
    from tailrace.contracts.access import MATRIX
    from tailrace.local.doctor import examine

    row = next((name for name in MATRIX if name == principal), None)
    if principal and row is None:
        raise typer.BadParameter(f"{principal!r} has no row in the access matrix; choose one of {', '.join(MATRIX)}")
    findings = examine(_connected(load_settings(), directory), row)
    if as_json:
        typer.echo(json.dumps([{"subject": f.subject, "ok": f.ok, "detail": f.detail} for f in findings]))
    else:
        for finding in findings:
            mark = typer.style("ok   ", fg="green") if finding.ok else typer.style("wrong", fg="red")
            typer.echo(f"{mark} {finding.subject}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(CONFIG_EXIT)


@app.command()
def run(
    service: Annotated[str, typer.Argument(help="features, inference, feedback, trainer, rollout or ops.")],
    use_case: Annotated[str, typer.Option("--use-case", help="Use case to serve.")],
) -> None:
    """Run one service in the foreground."""
    from tailrace.runtime.service import SERVICES, run_service

    if service not in SERVICES:
        raise typer.BadParameter(f"{service!r} is no service; choose one of {', '.join(SERVICES)}")
    run_service(service, use_case, load_settings())


@topics_app.command("apply")
def topics_apply(use_case: UseCases = None, directory: Directory = None) -> None:
    """Create the topics of use cases where they are missing."""
    from tailrace.backends import topics
    from tailrace.usecase.load import load_use_case, use_case_names

    settings = _connected(load_settings(), directory)
    for name in use_case or use_case_names(settings.use_cases):
        created = topics.apply(settings, load_use_case(settings.use_cases, name))
        typer.echo(f"{name}: {len(created)} topic(s) created")


@topics_app.command("strimzi")
def topics_strimzi(
    use_case: UseCases = None,
    cluster: Annotated[str, typer.Option(help="Name of the Strimzi cluster.")] = "tailrace",
) -> None:
    """Print the topics of use cases, and the users of their services, as resources of Strimzi.

    Their number of partitions and of replicas are TAILRACE_PARTITIONS and TAILRACE_REPLICATION.
    """
    from tailrace.backends import strimzi
    from tailrace.usecase.load import load_use_case, use_case_names

    settings = load_settings()
    names = use_case or use_case_names(settings.use_cases)
    cases = [load_use_case(settings.use_cases, name) for name in names]
    typer.echo(strimzi.text(cases, cluster, partitions=settings.partitions, replication=settings.replication), nl=False)


def main() -> None:
    """Entry point: errors become one message and an exit code."""
    try:
        app()
    except (ConfigError, UseCaseError) as error:
        _fail(error, CONFIG_EXIT)
    except TailraceError as error:
        _fail(error, 1)


def _fail(error: TailraceError, code: int) -> None:
    typer.echo(typer.style("tailrace: ", fg="red") + str(error), err=True)
    sys.exit(code)


def _connected(settings: Settings, directory: Path | None = None) -> Settings:
    """Settings that point at the embedded system when one runs and nothing else was asked for."""
    from tailrace.local.supervisor import connected

    return connected(settings, directory)


def _say_addresses(addresses: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(addresses))
        return
    for name, address in addresses.items():
        Console().print(f"{name:24} {address}", highlight=False)
    Console().print("Open a console with `tailrace console --use-case NAME`; Ctrl-C or `tailrace down` ends it all.")


def _stop_on_signals() -> list[int]:
    """A list that fills when the process is asked to end."""
    seen: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: seen.append(received))
    return seen
