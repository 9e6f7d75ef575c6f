"""Writes what is generated from the table of metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Pages and dashboards generated from the table of metrics.")


@app.command(hidden=True)
def telemetry(
    directory: Annotated[Path, typer.Argument(help="Root of the repository.")] = Path(),
) -> None:
    """Write docs/metrics.md and k8s/dashboards/tailrace.json anew; for those who change metrics."""
    # Of use to nobody else, and the dashboard needs a package that only developers have.
    from tailrace.contracts.metrics import metrics_page
    from tailrace.local.dashboard import dashboard_json

    for name, text in (("docs/metrics.md", metrics_page()), ("k8s/dashboards/tailrace.json", dashboard_json())):
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        typer.echo(str(file))
