"""Commands about who may do what on Kafka: `access show`, `access apply`, `access document`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tailrace.backends.settings import load_settings
from tailrace.contracts.access import PREFIX, Streams

app = typer.Typer()
access_app = typer.Typer(no_args_is_help=True, help="Who may do what on Kafka.")
app.add_typer(access_app, name="access")

UseCases = Annotated[list[str] | None, typer.Option("--use-case", help="Use case; repeat for several, none for all.")]
Prefix = Annotated[str, typer.Option("--prefix", help="What user names have before the name of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@access_app.command()
def show(
    use_case: UseCases = None,
    prefix: Prefix = PREFIX,
    commands: Annotated[bool, typer.Option("--commands", help="As commands of kafka-acls.sh.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every right the matrix gives, one per line; asks no broker."""
    from tailrace.backends.access import command, wanted

    rights = wanted(_streams(use_case), prefix)
    if as_json:
        typer.echo(msgspec.json.encode(rights).decode())
        return
    for right in rights:
        typer.echo(command(right) if commands else str(right))


@access_app.command()
def apply(
    use_case: UseCases = None,
    prefix: Prefix = PREFIX,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be added, and add nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add the ACLs that are missing on the broker; users must exist or be made by its administrator."""
    from tailrace.backends import access

    settings = load_settings()
    found = (access.plan if dry_run else access.apply)(settings, _streams(use_case), prefix)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    for right in found.missing:
        typer.echo(f"{'missing' if dry_run else 'added  '}  {right}")
    for right in found.extra:
        typer.echo(f"not in the matrix, left as it is  {right}")
    added = "to be added" if dry_run else "added"
    typer.echo(f"{len(found.missing)} ACL(s) {added}, {len(found.present)} there before")


@access_app.command()
def document(path: Annotated[Path, typer.Argument(help="Document to update.")] = Path("docs/security.md")) -> None:
    """Write the access matrix into docs/security.md."""
    from tailrace.contracts.access_document import write

    write(path)
    typer.echo(f"access matrix written to {path}")


def _streams(names: list[str] | None) -> list[Streams]:
    from tailrace.backends.access import streams_of
    from tailrace.usecase.load import load_use_case, use_case_names

    folder = load_settings().use_cases
    return [streams_of(load_use_case(folder, name)) for name in names or use_case_names(folder)]
