"""Commands about models and what the loop knows: they read topics, and ask through RETRAINING."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import producer, read_topic
from tailrace.backends.settings import Settings, load_settings
from tailrace.contracts.records import (
    Alarm,
    CandidateRefused,
    CandidateRegistered,
    PromoteRequested,
    Quality,
    RetrainingRecord,
    RetrainRequested,
    RollbackRequested,
    RoutingTable,
)
from tailrace.contracts.topics import Topics
from tailrace.errors import TailraceError

app = typer.Typer()
dead_letters_app = typer.Typer(no_args_is_help=True, help="Records that could not be used.")
app.add_typer(dead_letters_app, name="dead-letters")

UseCase = Annotated[str, typer.Option("--use-case", help="Use case.")]
Directory = Annotated[Path | None, typer.Option("--dir", help="Folder of an embedded system.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit trail.", prompt=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

ANSWER_S = 30.0


@app.command()
def models(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """List candidates, refusals and who serves."""
    settings, topics = _where(directory, use_case)
    table = newest_routing(settings, topics)
    roles = {v.model_version: v.name for v in [*table.variants, *_former(table)]} if table is not None else {}
    rows = []
    for record in _retraining(settings, topics):
        if isinstance(record, CandidateRegistered):
            figures = {name: record.metrics.get(name) for name in ("log_loss", "roc_auc", "pr_auc")}
            rows.append(
                {"version": record.model_version, "role": roles.get(record.model_version, ""), "run": record.run_id}
                | figures
            )
        elif isinstance(record, CandidateRefused):
            rows.append({"version": "refused", "role": record.reason, "run": record.run_id})
    _show(rows, ("version", "role", "run", "log_loss", "roc_auc", "pr_auc"), as_json=as_json)


@app.command()
def promote(version: str, use_case: UseCase, reason: Reason, directory: Directory = None) -> None:
    """Make a registered version champion now."""
    settings, topics = _where(directory, use_case)
    request = PromoteRequested(
        use_case=use_case, model_version=version, by=getpass.getuser(), reason=reason, requested_at_ms=_now_ms()
    )
    _ask(settings, topics, request, lambda table: table.variants[0].model_version == version)


@app.command()
def rollback(use_case: UseCase, reason: Reason, directory: Directory = None) -> None:
    """Return to the former champion, which is still loaded."""
    settings, topics = _where(directory, use_case)
    before = newest_routing(settings, topics)
    if before is None or not before.warm:
        raise TailraceError("there is no former champion to return to")
    request = RollbackRequested(use_case=use_case, by=getpass.getuser(), reason=reason, requested_at_ms=_now_ms())
    _ask(settings, topics, request, lambda table: table.epoch > before.epoch)


@app.command()
def retrain(use_case: UseCase, reason: Reason, directory: Directory = None) -> None:
    """Ask for a new model, trained on what is known at the present stream time."""
    settings, topics = _where(directory, use_case)
    newest = max((q.watermark_ms for q in qualities(settings, topics)), default=_now_ms())
    request = RetrainRequested(
        run_id=f"{use_case}-manual-{newest}",
        use_case=use_case,
        trigger="manual",
        reason=reason,
        requested_at_ms=newest,
        train_until_ms=newest,
        by=getpass.getuser(),
    )
    _send(settings, topics, request)
    typer.echo(f"asked for: {request.run_id}; follow it with `tailrace models --use-case {use_case}`")


@app.command()
def quality(
    use_case: UseCase,
    since: Annotated[str, typer.Option("--from", help="First day, ISO date.")] = "1970-01-01",
    until: Annotated[str, typer.Option(help="First day no longer counted, ISO date.")] = "9999-01-01",
    variant: Annotated[str, typer.Option(help="champion, shadow or default.")] = "champion",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Show live metrics, per version and over the whole span, from the QUALITY topic."""
    from tailrace.core.metrics import merge

    settings, topics = _where(directory, use_case)
    start, end = (
        int(dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC).timestamp() * 1000) for day in (since, until)
    )
    found = [
        q
        for q in qualities(settings, topics)
        if not q.slice and q.variant == variant and start <= q.window_start_ms < end
    ]
    versions = sorted({q.model_version for q in found}, key=lambda version: (len(version), version))
    rows: list[dict[str, Any]] = []
    for name in [*versions, "all"]:
        part = [q for q in found if name in ("all", q.model_version)]
        counts = {"version": name, "predictions": sum(q.predictions for q in part), "final": sum(q.final for q in part)}
        rows.append(counts | merge(part))
    columns = ("version", "predictions", "final", "log_loss", "roc_auc", "pr_auc", "brier", "accuracy", "f1")
    _show(rows, columns, as_json=as_json)


@app.command()
def alarms(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """List alarms, the newest last."""
    settings, topics = _where(directory, use_case)
    records = [decode(Alarm, m.value) for m in read_topic(settings, topics.alarms) if m.value is not None]
    rows = [
        {
            "at": _day(a.raised_at_ms),
            "kind": a.kind + (" (resolved)" if a.resolved else ""),
            "subject": a.subject,
            "detector": a.detector,
            "value": a.value,
            "threshold": a.threshold,
            "detail": a.detail,
        }
        for a in records
    ]
    _show(rows, ("at", "kind", "subject", "detector", "value", "threshold", "detail"), as_json=as_json)


@dead_letters_app.command("list")
def dead_letters_list(use_case: UseCase, directory: Directory = None, as_json: AsJson = False) -> None:
    """Count dead letters that were not sent again, by stage and reason, with one example each."""
    from tailrace.ops.dead_letters import held_records

    settings, topics = _where(directory, use_case)
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for _, letter in held_records(settings, topics):
        row = groups.setdefault(
            (letter.stage, letter.reason), {"stage": letter.stage, "reason": letter.reason, "records": 0}
        )
        row["records"] += 1
        row["example"] = f"{letter.source.topic}[{letter.source.partition}]@{letter.source.offset}: {letter.detail}"
    _show(list(groups.values()), ("stage", "reason", "records", "example"), as_json=as_json)


@dead_letters_app.command("replay")
def dead_letters_replay(
    use_case: UseCase,
    reason: Annotated[str, typer.Option(help="Replay only letters with this reason; empty for all.")] = "",
    directory: Directory = None,
) -> None:
    """Send dead letters to the topic they came from, byte for byte and once, after the cause has been mended."""
    from tailrace.ops.dead_letters import replay

    settings, topics = _where(directory, use_case)
    typer.echo(f"{replay(settings, topics, reason=reason, by=getpass.getuser())} record(s) sent again")


def newest_routing(settings: Settings, topics: Topics) -> RoutingTable | None:
    """The routing table in force; None before the first."""
    tables = (decode(RoutingTable, m.value) for m in read_topic(settings, topics.control) if m.value is not None)
    return max(tables, key=lambda table: table.epoch, default=None)


def qualities(settings: Settings, topics: Topics) -> list[Quality]:
    """The newest quality record of every key."""
    newest = {m.key: m.value for m in read_topic(settings, topics.quality) if m.value is not None}
    return [decode(Quality, value) for value in newest.values()]


def _retraining(settings: Settings, topics: Topics) -> list[Any]:
    kind: Any = RetrainingRecord
    return [decode(kind, m.value) for m in read_topic(settings, topics.retraining) if m.value is not None]


def _ask(settings: Settings, topics: Topics, request: Any, done: Any) -> None:
    _send(settings, topics, request)
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        table = newest_routing(settings, topics)
        if table is not None and done(table):
            typer.echo(f"done: epoch {table.epoch}, champion is version {table.variants[0].model_version}")
            return
        time.sleep(0.2)
    raise TailraceError("asked, but the rollout controller has not acted; see its log, and `tailrace models`")


def _send(settings: Settings, topics: Topics, request: Any) -> None:
    writer = producer(settings)
    writer.produce(topics.retraining, encode(request), topics.use_case)
    if writer.flush(10):
        raise TailraceError("the broker did not acknowledge the request; check it with `tailrace doctor`")


def _where(directory: Path | None, use_case: str) -> tuple[Settings, Topics]:
    from tailrace.local.supervisor import connected

    return connected(load_settings(), directory), Topics(use_case)


def _former(table: RoutingTable) -> list[Any]:
    return [type(v)(**{**{f: getattr(v, f) for f in v.__struct_fields__}, "name": "former"}) for v in table.warm[:1]]


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _day(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
