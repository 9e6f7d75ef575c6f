"""The answer of `tailrace explain` on one page of Markdown."""

from __future__ import annotations

import datetime as dt
from typing import Any


def markdown(use_case: str, found: dict[str, Any]) -> str:
    """The page.

    Args:
        use_case: Name.
        found: Answer of `GET /api/v1/root-causes`.
    """
    span = f"{_minute(found['since_ms'])} to {_minute(found['until_ms'])}"
    lines = [
        f"# Why {use_case} lost quality",
        "",
        f"Events of {span} UTC against those since {_minute(found['from_ms'])}.",
    ]
    if found["problem"]:
        return "\n".join([*lines, "", f"Nothing can be said: {found['problem']}."])
    lines += [
        f"Mean log loss {found['loss_now']:.4f} over {found['judged_now']} judged predictions, "
        f"{found['loss_before']:.4f} over {found['judged_before']} before.",
        "",
    ]
    if not found["causes"]:
        return "\n".join([*lines, "It has not risen."])
    lines += [
        "| | cause | explains | of all rows, before and now | its log loss, before and now | worst predictions |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(number, cause) for number, cause in enumerate(found["causes"], 1)]
    return "\n".join(lines)


def _row(number: int, cause: dict[str, Any]) -> str:
    name = _named(cause["conditions"]) or "no group of its own: everything got worse"
    if cause["also"]:
        name += f" (the same rows: {_named(cause['also'])})"
    losses = " and ".join(
        "none" if loss is None else f"{loss:.4f}" for loss in (cause["loss_before"], cause["loss_now"])
    )
    rows = f"{cause['rows_before']:.1%} and {cause['rows_now']:.1%}"
    return f"| {number} | {name} | {cause['share']:.0%} | {rows} | {losses} | {', '.join(cause['examples'][:3])} |"


def _named(conditions: list[dict[str, str]]) -> str:
    return " and ".join(f"`{condition['column']}` {condition['value']}" for condition in conditions)


def _minute(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")
