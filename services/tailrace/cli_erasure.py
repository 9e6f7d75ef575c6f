"""The command that asks for the erasure of an entity."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated

import typer

from tailrace.backends.settings import load_settings

app = typer.Typer()


@app.command()
def erase(
    use_case: Annotated[str, typer.Option("--use-case", help="Use case.")],
    entity: Annotated[str, typer.Option(help="Column of the entity, such as card_id.")],
    value: Annotated[str, typer.Option(help="Which one.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the audit trail.", prompt=True)],
    directory: Annotated[Path | None, typer.Option("--dir", help="Folder of an embedded system.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Erase what is kept of an entity, of events up to now; what that is, and by when: docs/erasure.md.

    Who asks is the holder of the token. Done is what the audit trail calls `erased`.
    """
    # Imported on use: other commands need no HTTP client.
    from tailrace.local.admin_client import AdminClient

    answer = AdminClient(load_settings(), use_case, directory).post("/erase", entity=entity, value=value, reason=reason)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    until = dt.datetime.fromtimestamp(answer["before_ms"] / 1_000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    typer.echo(
        f"asked for by {answer['by']}: events up to {until} UTC, erased once stream time is there; "
        f"the audit trail of `tailrace console --use-case {use_case}` then says so"
    )
