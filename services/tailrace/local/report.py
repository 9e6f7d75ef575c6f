"""What the terminal shows of a replay: live panels and final tables."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, RetrainRequested
from tailrace.local.audit import AuditReport
from tailrace.local.observer import Observer
from tailrace.local.replay import Progress
from tailrace.testing.decisions import DecisionLog

DAY_MS = 86_400_000


def when(stream_ms: int) -> str:
    """A stream time as people read it, UTC."""
    return datetime.fromtimestamp(stream_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")


def figure(value: float | None, digits: int = 4) -> str:
    """A metric; a dash where there is no data."""
    return "-" if value is None else f"{value:,.{digits}f}"


def audit_table(report: AuditReport) -> RenderableType:
    """An audit report: what was counted, then every finding."""
    counted = Table(title=f"audit of {report.use_case}", show_header=False)
    for name in (
        "events",
        "predictions",
        "dead_letters",
        "shadow_predictions",
        "labels",
        "windows_recounted",
        "routing_tables",
        "audit_entries",
    ):
        counted.add_row(name.replace("_", " "), f"{getattr(report, name):,}")
    verdict = "[green]clean[/]" if report.clean else f"[red]{len(report.findings)} findings[/]"
    counted.add_row("result", f"{verdict} after {report.took_s:.1f} s")
    if report.clean:
        return counted
    found = Table("guarantee broken", "kind", "count", "for example")
    for finding in report.findings:
        found.add_row(finding.check, finding.problem, f"{finding.count:,}", "\n".join(finding.examples[:3]))
    return Group(counted, found)


def live_panel(progress: Progress, seen: Observer, drift_ms: int) -> RenderableType:
    """The loop while it runs: stream date, traffic, accuracy by version, decisions."""
    rate = progress.events / max(progress.elapsed_s, 1e-9)
    head = (
        f"[bold]{when(progress.stream_ms)}[/]  {progress.events:,} of {progress.events_total:,} events  "
        f"{rate:,.0f}/s  champion {seen.champion or '-'}"
    )
    if progress.stream_ms >= drift_ms:
        head += "  [red]fraud pattern changed[/]"
    quality = Table("version", "labelled", "log loss", "PR AUC", title="last seven labelled days", expand=True)
    for version, row in seen.accuracy(progress.stream_ms - 10 * DAY_MS, progress.stream_ms).items():
        quality.add_row(version, figure(row["labelled"], 0), figure(row["log_loss"]), figure(row["pr_auc"], 3))
    return Panel(Group(head, quality, decisions_table(seen, last=8)), title="tailrace demo")


def decisions_table(seen: DecisionLog, last: int | None = None) -> Table:
    """Alarms, retraining and routing in order of stream time."""
    rows: list[tuple[int, str, str]] = [
        (alarm.raised_at_ms, f"[yellow]alarm[/] {alarm.kind}", f"{alarm.subject}: {alarm.detail}")
        for alarm in seen.alarms
        if not alarm.resolved
    ]
    asked_ms = {}
    for record in seen.retraining:
        if isinstance(record, RetrainRequested):
            asked_ms[record.run_id] = record.requested_at_ms
            rows.append((record.requested_at_ms, f"retrain ({record.trigger})", record.reason))
        elif isinstance(record, CandidateRegistered):
            rows.append((asked_ms.get(record.run_id, 0), f"candidate {record.model_version}", "passed every gate"))
        elif isinstance(record, CandidateRefused):
            rows.append((asked_ms.get(record.run_id, 0), "[red]refused[/]", record.reason))
    for routing in seen.tables:
        state = ", ".join(f"{variant.role} {variant.model_version}" for variant in routing.variants)
        rows.append((routing.decided_at_ms, f"[green]{state}[/]", routing.reason))
    rows.sort(key=lambda row: row[0])
    table = Table("stream time", "decision", "why", title="decisions", expand=True)
    for at_ms, what, why in rows[-last if last else 0 :]:
        table.add_row(when(at_ms), what, why[:110])
    return table
