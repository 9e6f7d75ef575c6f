"""Commands about declarations: `check`, `plan` and `schemas`. Nothing here talks to a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tailrace.backends.settings import load_settings
from tailrace.core.durations import UNIT_MS
from tailrace.core.plan import Plan, WindowColumn
from tailrace.errors import UseCaseError
from tailrace.usecase.load import load_use_case, use_case_names
from tailrace.usecase.sharing import workers_of

app = typer.Typer(no_args_is_help=True, help="Declarations: check them, see what they compile to, publish schemas.")

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
UseCases = Annotated[Path | None, typer.Option("--use-cases", help="Folder with one folder per use case.")]


class Checked(msgspec.Struct, frozen=True):
    """What `check` says of one use case; without `findings` it is in order.

    `feedback` says how many workers of feedback it has, or could have, and what keeps it from more.
    """

    use_case: str
    fingerprint: str
    columns: int
    findings: tuple[str, ...]
    feedback: str = ""


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Use cases; none for all.")] = None,
    use_cases: UseCases = None,
    as_json: AsJson = False,
) -> None:
    """Check declarations and list everything that is wrong; exits with 1 on findings."""
    folder = _folder(use_cases)
    checked = [_checked(folder, name) for name in names or use_case_names(folder)]
    if as_json:
        _print_json(checked)
    else:
        _print_checked(checked, folder)
    if not checked or any(one.findings for one in checked):
        raise typer.Exit(1)


@app.command()
def plan(name: str, use_cases: UseCases = None, as_json: AsJson = False) -> None:
    """Show the feature vector a use case compiles to, column by column."""
    compiled = load_use_case(_folder(use_cases), name).plan
    if as_json:
        _print_json(compiled)
        return
    table = Table("#", "column", "computed as", "over", "kept by", title=f"{name}: plan {compiled.fingerprint}")
    for number, row in enumerate(plan_rows(compiled)):
        table.add_row(str(number), *row)
    Console().print(table)


@app.command()
def schemas(
    directory: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("schemas"),
    as_json: AsJson = False,
) -> None:
    """Write JSON Schema, Avro and AsyncAPI of every record that travels."""
    # Slow to import, and of no use to the other commands.
    from tailrace.contracts.schemas import write_schemas

    files = [str(file) for file in write_schemas(directory)]
    if as_json:
        _print_json(files)
    else:
        typer.echo(f"{len(files)} schemas written to {directory}")


def plan_rows(compiled: Plan) -> list[tuple[str, str, str, str]]:
    """Rows (column, computed as, over, kept by) in the order of the feature vector."""
    rows = [(c.name, f"{c.kind} {c.field}".strip(), "request", "-") for c in compiled.request]
    for view in compiled.views:
        kept = f"{view.entity} ({view.source})"
        rows += [(c.name, f"{c.kind} {c.field}".strip(), _span(c), kept) for c in view.columns]
    return rows


def _checked(folder: Path, name: str) -> Checked:
    try:
        use_case = load_use_case(folder, name)
    except UseCaseError as error:
        return Checked(name, "", 0, error.findings)
    return Checked(name, use_case.plan.fingerprint, len(use_case.plan.order), (), workers_of(use_case))


def _print_checked(checked: list[Checked], folder: Path) -> None:
    if not checked:
        typer.echo(f"there is no use case in {folder}; make {folder / '<name>' / 'usecase.py'}")
        return
    table = Table("use case", "columns", "plan", "findings", show_lines=True)
    for one in checked:
        findings = "\n".join(f"{number}. {text}" for number, text in enumerate(one.findings, 1))
        # Findings quote what users wrote; brackets in them are no markup.
        table.add_row(one.use_case, str(one.columns), one.fingerprint, findings.replace("[", r"\[") or "none")
    Console().print(table)
    for one in checked:
        if one.feedback:
            typer.echo(f"{one.use_case}: feedback is {one.feedback}")


def _folder(use_cases: Path | None) -> Path:
    return use_cases or load_settings().use_cases


def _print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _span(column: WindowColumn) -> str:
    if not column.span_ms:
        return "-"
    unit = max((u for u, ms in UNIT_MS.items() if column.span_ms % ms == 0), key=lambda u: UNIT_MS[u])
    return f"{column.span_ms // UNIT_MS[unit]}{unit}"
