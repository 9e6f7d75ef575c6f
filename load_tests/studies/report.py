"""Prints what a study found: one line for each figure, with its bar and whether it was met."""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import typer

_HOLDS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


class Figure(NamedTuple):
    """A figure that a study measured; `bar` None: told, not judged."""

    name: str
    value: float
    bar: float | None = None
    kind: Literal["<=", ">="] = "<="

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        return self.bar is None or _HOLDS[self.kind](self.value, self.bar)


def report(study: Callable[..., list[Figure]]) -> None:
    """Runs a study as a command: `--json` prints JSON, `--seeds` sets their number. Exits 1 where a bar is missed."""

    def command(seeds: int = 8, as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
        show(study(seeds), as_json=as_json)

    typer.run(command)


def show(figures: Sequence[Figure], *, as_json: bool) -> None:
    """Prints figures and exits: 1 where a bar is missed."""
    if as_json:
        rows: list[dict[str, Any]] = [{**figure._asdict(), "met": figure.met} for figure in figures]
        print(json.dumps(rows, indent=2))  # noqa: T201  # the result of the command
    else:
        for figure in figures:
            bar = f"{figure.kind} {figure.bar:g}" if figure.bar is not None else ""
            verdict = "" if figure.bar is None else "yes" if figure.met else "NO"
            print(f"{figure.name:64} {figure.value:10.4f}  {bar:10} {verdict}")  # noqa: T201  # as above
    sys.exit(0 if all(figure.met for figure in figures) else 1)
