"""docs/capacity.md: its tables are written from what was measured, so that they cannot say anything else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from load_tests.capacity import Costs, Load, measured, plan

PAGE = Path(__file__).parents[1] / "docs" / "capacity.md"
EXAMPLES = {
    "a-thousand": Load(events_per_second=1e3, keys=1e6),
    "a-million": Load(events_per_second=1e6, keys=1e7, open_days=1 / 24),
}


def rewritten(text: str, cost: Costs) -> str:
    """The page with its tables as of these costs; a table stands between `<!-- name -->` and `<!-- end -->`."""
    tables = {"measured": _table(("cost", "here", "measured by"), measured(cost))}
    tables |= {name: plan_table(cost, load) for name, load in EXAMPLES.items()}
    for name, table in tables.items():
        found = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = found.subn(lambda match, table=table: f"{match[1]}{table}{match[2]}", text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} places for the table {name!r}, not one")
    return text


def plan_table(cost: Costs, load: Load) -> str:
    """What a load needs, as Markdown."""
    rows = [(need.what, f"{_amount(need.amount)} {need.unit}".strip(), need.how) for need in plan(cost, load)]
    return _table(("what", "how much", "because"), rows)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
