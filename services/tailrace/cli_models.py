"""Commands about models and what the loop knows; they use the admin API and nothing else."""

from __future__ import annotations

import datetime as dt
import json
import time
import webbrowser
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from tailrace.backends.settings import load_settings
from tailrace.errors import TailraceError
from tailrace.local.admin_client import AdminClient
from tailrace.local.root_cause_report import markdown

app = typer.Typer()
dead_letters_app = typer.Typer(no_args_is_help=True, help="Records that could not be used.")
app.add_typer(dead_letters_app, name="dead-letters")

UseCase = Annotated[str, typer.Option("--use-case", help="Use case.")]
Directory = Annotated[Path | None, typer.Option("--dir", help="Folder of an embedded system.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit trail.", prompt=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

ANSWER_S = 30.0
READING_COLUMNS = ("day", "model", "maturity", "estimate", "provisional", "final")


@app.command()
def console(
    use_case: UseCase, directory: Directory = None, open_: Annotated[bool, typer.Option("--open")] = False
) -> None:
    """Print the console's address with the token that opens it, or open it in a browser."""
    client = AdminClient(load_settings(), use_case, directory)
    # Behind the #, so that it goes to the page and never over the wire.
    address = f"{client.url}/#token={client.token}"
    typer.echo(address)
    if open_ and not webbrowser.open(address):
        raise TailraceError("no browser was found; open the address above in one")


@app.command()
def models(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """List registered versions and who serves."""
    rows = _state(use_case, directory)["models"]
    if not as_json:
        rows = [{**row, **row["metrics"], "run": row["run_id"]} for row in rows]
    _show(rows, ("version", "role", "share", "run", *_gate_figures(rows)), as_json=as_json)


@app.command()
def promote(version: str, use_case: UseCase, reason: Reason, directory: Directory = None) -> None:
    """Make a registered version champion now."""
    client = AdminClient(load_settings(), use_case, directory)
    epoch = _epoch(client.get("/state"))
    client.post(f"/models/{version}/promote", reason=reason, epoch=epoch)
    _await(client, lambda state: _champion(state) == version)


@app.command()
def rollback(use_case: UseCase, reason: Reason, directory: Directory = None) -> None:
    """Return to the former champion, which is still loaded."""
    client = AdminClient(load_settings(), use_case, directory)
    epoch = _epoch(client.get("/state"))
    client.post("/rollback", reason=reason, epoch=epoch)
    _await(client, lambda state: _epoch(state) > epoch)


@app.command()
def retrain(use_case: UseCase, reason: Reason, directory: Directory = None) -> None:
    """Ask for a new model, trained on what is known at the present stream time."""
    answer = AdminClient(load_settings(), use_case, directory).post("/retrain", reason=reason)
    typer.echo(f"asked for: {answer['run_id']}; follow it with `tailrace models --use-case {use_case}`")


@app.command()
def retrainings(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """List what was trained, the newest first: why, at what cost, and what it gained over its predecessor."""
    rows = _state(use_case, directory)["retraining"]
    if not as_json:
        rows = [{**row, "at": _minute(row["requested_at_ms"])} for row in rows]
    _show(rows, ("at", "trigger", "reason", "state", "outcome", "seconds", "gain"), as_json=as_json)


@app.command()
def quality(
    use_case: UseCase,
    since: Annotated[str, typer.Option("--from", help="First day, ISO date.")] = "1970-01-01",
    until: Annotated[str, typer.Option(help="First day no longer counted, ISO date.")] = "9999-01-01",
    variant: Annotated[str, typer.Option(help="champion, shadow, canary or default.")] = "champion",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Show live metrics, per version and over the whole span."""
    client = AdminClient(load_settings(), use_case, directory)
    rows = client.get("/quality", since=since, until=until, variant=variant)
    names: tuple[str, ...] = ("mae", "rmse", "bias", "pinball", "coverage")
    if not any("mae" in row for row in rows):
        names = ("log_loss", "roc_auc", "pr_auc", "brier", "accuracy", "f1")
        names += tuple(name for name in ("amount_recall", "top_precision") if any(name in row for row in rows))
    columns = ("version", "predictions", "final", *names)
    _show(rows, columns, as_json=as_json)


@app.command()
def readings(
    use_case: UseCase,
    metric: Annotated[str, typer.Option(help="Metric; default: log_loss, or mae of numbers.")] = "",
    days: Annotated[int, typer.Option("-n", help="Newest days.", min=1)] = 14,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Show a metric by day, side by side: estimated without labels, provisional, and final, with 95 % intervals."""
    found = _state(use_case, directory)["quality"]
    newest = sorted({row["window_start_ms"] for row in found})[-days:]
    rows = [_three(row, metric) for row in reversed(found) if row["window_start_ms"] in newest]
    _show(rows if as_json else [_spoken(row) for row in rows], READING_COLUMNS, as_json=as_json)


@app.command()
def drift(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show how far features and scores are from the champion's training data, the furthest first."""
    rows = _state(use_case, directory)["drift"]
    if not as_json:
        rows = [{**row, "measured": _minute(row["measured_at_ms"])} for row in rows]
    _show(rows, ("subject", "detector", "value", "threshold", "rows", "measured"), as_json=as_json)


@app.command()
def alarms(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """List alarms, the newest first."""
    rows = _state(use_case, directory)["alarms"]
    if not as_json:
        rows = [
            {
                **row,
                "at": _minute(row["raised_at_ms"]),
                "kind": row["kind"] + (" (resolved)" if row["resolved"] else ""),
            }
            for row in rows
        ]
    _show(rows, ("at", "kind", "subject", "detector", "value", "threshold", "detail"), as_json=as_json)


@app.command()
def trace(event_id: str, use_case: UseCase, directory: Directory = None) -> None:
    """Follow one event from its id to its outcome, as JSON; exits with 1 when no topic knows it."""
    found = AdminClient(load_settings(), use_case, directory).get(f"/trace/{event_id}")
    typer.echo(json.dumps(found, indent=2))
    if not any(found[part] for part in ("event", "predictions", "outcomes", "dead_letters")):
        raise typer.Exit(1)


@app.command()
def explain(
    use_case: UseCase,
    since: Annotated[
        str, typer.Option(help="ISO time of the events; default: since when the newest alarm speaks.")
    ] = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Rank what the rise of the loss comes from: slices, features, stale or missing views, model versions."""
    client = AdminClient(load_settings(), use_case, directory)
    found = client.get("/root-causes", since_ms=str(_since_ms(client, since)))
    typer.echo(json.dumps(found, indent=2) if as_json else markdown(use_case, found))
    if found["problem"]:
        raise typer.Exit(1)


@app.command()
def tail(
    channel: Annotated[str, typer.Argument(help="predictions, labels, quality, drift, alarms, retraining, …")],
    use_case: UseCase,
    directory: Directory = None,
    limit: Annotated[int, typer.Option("-n", help="End after so many records; 0: never.", min=0)] = 0,
) -> None:
    """Print new records of a topic as JSON lines, as they come."""
    for number, record in enumerate(AdminClient(load_settings(), use_case, directory).stream(f"/tail/{channel}"), 1):
        typer.echo(json.dumps(record))
        if number == limit:
            return


@dead_letters_app.command("list")
def dead_letters_list(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """Count dead letters that were not sent again, by stage and reason, with one example each."""
    rows = AdminClient(load_settings(), use_case, directory).get("/dead-letters")
    _show(rows, ("stage", "reason", "records", "example"), as_json=as_json)


@dead_letters_app.command("replay")
def dead_letters_replay(
    use_case: UseCase,
    reason: Reason,
    code: Annotated[str, typer.Option(help="Replay only letters with this reason code; empty for all.")] = "",
    directory: Directory = None,
) -> None:
    """Send dead letters to the topic they came from, byte for byte and once, after the cause has been mended."""
    answer = AdminClient(load_settings(), use_case, directory).post("/dead-letters/replay", reason=reason, code=code)
    typer.echo(f"{answer['sent']} record(s) sent again")


def _state(use_case: str, directory: Path | None) -> dict[str, Any]:
    return dict(AdminClient(load_settings(), use_case, directory).get("/state"))


def _gate_figures(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    return ("mae", "rmse") if any("mae" in row["metrics"] for row in rows) else ("log_loss", "roc_auc", "pr_auc")


def _since_ms(client: AdminClient, since: str) -> int:
    if since:
        try:
            at = dt.datetime.fromisoformat(since)
        except ValueError as error:
            raise TailraceError(f"--since {since!r} is no ISO time, such as 2026-01-31T12:00") from error
        return int((at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp() * 1_000)
    standing = [alarm for alarm in client.get("/state")["alarms"] if not alarm["resolved"]]
    if not standing:
        raise TailraceError("no alarm stands; say with --since from when on the loss is to be explained")
    return int(standing[0]["since_ms"])


def _three(row: dict[str, Any], metric: str) -> dict[str, Any]:
    """A window with its three readings of a metric: "value", "interval" and, where there is no value, "withheld"."""
    name = metric or ("mae" if "mae" in row["metrics"] else "log_loss")
    kept = {key: row[key] for key in ("variant", "model_version", "predictions", "maturity")}
    found: dict[str, Any] = {"day": _minute(row["window_start_ms"])[:10], "metric": name, **kept}
    for reading in ("estimate", "provisional", "final"):
        said = row if reading == "final" else row[reading] or {"metrics": {}, "intervals": {}}
        found[reading] = {
            "value": said["metrics"].get(name),
            "interval": said["intervals"].get(name),
            "withheld": said.get("withheld", ""),
        }
    return found


def _spoken(row: dict[str, Any]) -> dict[str, Any]:
    shown = dict(row) | {"maturity": f"{row['maturity']:.0%}", "model": f"{row['variant']} {row['model_version']}"}
    for reading in ("estimate", "provisional", "final"):
        said = row[reading]
        around = "\n{:.3f}-{:.3f}".format(*said["interval"]) if said["interval"] else ""
        shown[reading] = said["withheld"] if said["value"] is None else f"{said['value']:.4f}{around}"
    return shown


def _epoch(state: dict[str, Any]) -> int:
    return int(state["routing"]["epoch"]) if state["routing"] else 0


def _champion(state: dict[str, Any]) -> str:
    return str(state["routing"]["variants"][0]["model_version"]) if state["routing"] else ""


def _await(client: AdminClient, done: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        state = client.get("/state")
        if done(state):
            typer.echo(f"done: epoch {_epoch(state)}, champion is version {_champion(state)}")
            return
        time.sleep(0.2)
    raise TailraceError("asked, but the rollout controller has not acted; see its log, and `tailrace models`")


def _show(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(list(rows)))
        return
    table = Table(*(Column(name, overflow="fold", min_width=len(name)) for name in columns))
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _minute(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")
