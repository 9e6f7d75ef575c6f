"""Where a loss comes from: groups of predictions ranked by the share of its rise that they explain.

The rise of the mean loss splits exactly over the values of any column, into what got worse within a group and
what comes from its having become more frequent. A group is a condition on one column or on two: slices, bins of
features, and whatever else is known of a prediction, such as the model's version or a degraded view. Between
groups that explain the same, the narrower one and the one that was not there before say more. After Adtributor
(Bhagwan et al. 2014, sections 3 and 4) and Slice Finder (Chung et al. 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

BINS = 8
"""Bins of a feature, at its quantiles before; those below, above and missing come on top."""
FEW = 16
"""Distinct values up to which each is a bin of its own."""
MOST_VALUES = 50
"""Values of an attribute that are told apart, the most frequent first."""
LEAST_ROWS = 30
"""Rows a group must have now. What has vanished is no cause: its rows went elsewhere."""
PRIOR_ROWS = 20.0
"""A group's loss before counts as if so many rows with the mean loss had been among it."""
SINGLES, SHOWN, EXAMPLES = 24, 10, 5
BREADTH, KNOWN, SECOND = 0.3, 0.2, 0.05
"""What a group's score loses: by its share of all rows, by how far these were there before, by a second condition."""
SAME_ROWS = 0.8
"""Overlap (Jaccard) from which two groups are one cause under two names."""


class Sample(NamedTuple):
    """Judged predictions of one span of time.

    `loss` float64 (n,); `features` float32 (n, d), NaN = missing; `attributes` by name, str (n,).
    """

    loss: NDArray[np.float64]
    features: NDArray[np.float32]
    attributes: Mapping[str, NDArray[np.str_]]


class Condition(msgspec.Struct, frozen=True):
    """What the rows of a group have in common, such as ("country", "FR") or ("amount", "missing")."""

    column: str
    value: str


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A group and what it explains.

    `share` of the rise, 1 = all of it; `score` by which causes are ranked; `rows_before` and `rows_now` as shares
    of all rows; mean losses of the group, None without rows; `examples`, positions of its worst predictions now;
    `also`, conditions that hold for nearly the same rows.
    """

    conditions: list[Condition]
    share: float
    score: float
    rows_before: float
    rows_now: float
    loss_before: float | None
    loss_now: float | None
    examples: list[int]
    also: list[Condition] = []


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Mean losses before and now, and the causes of the rise, the likeliest first; none where nothing rose."""

    loss_before: float
    loss_now: float
    causes: list[Cause]


class _Group(NamedTuple):
    conditions: tuple[Condition, ...]
    before: NDArray[np.bool_]
    now: NDArray[np.bool_]


def explain(names: Sequence[str], before: Sample, now: Sample) -> Explanation:
    """Ranks the causes of a rise of the mean loss.

    Args:
        names: Features, d names in the order of the columns.
        before: Predictions before the rise, n >= 1.
        now: Predictions since, n >= 1; with the same columns.
    """
    level, present = float(before.loss.mean()), float(now.loss.mean())
    rise = present - level
    if rise <= 0.0:
        return Explanation(loss_before=level, loss_now=present, causes=[])
    columns = [_bins(name, before.features[:, at], now.features[:, at]) for at, name in enumerate(names)]
    columns += [_values(name, before.attributes[name], now.attributes[name]) for name in sorted(before.attributes)]
    groups = [group for column in columns for group in column]
    groups.append(_Group((), np.ones(len(before.loss), np.bool_), np.ones(len(now.loss), np.bool_)))
    found = sorted((_cause(group, before.loss, now.loss) for group in groups), key=_rank)
    by_conditions = {group.conditions: group for group in groups}
    singles = [by_conditions[tuple(cause.conditions)] for cause in found if cause.conditions][:SINGLES]
    pairs = [_both(one, other) for one, other in combinations(singles, 2)]
    pairs = [group for group in pairs if group.conditions and _is_large(group)]
    by_conditions |= {group.conditions: group for group in pairs}
    found = sorted([*found, *(_cause(group, before.loss, now.loss) for group in pairs)], key=_rank)
    return Explanation(loss_before=level, loss_now=present, causes=_distinct(found, by_conditions))


def _rank(cause: Cause) -> tuple[float, list[tuple[str, str]]]:
    return -cause.score, [(condition.column, condition.value) for condition in cause.conditions]


def _bins(name: str, before: NDArray[np.float32], now: NDArray[np.float32]) -> list[_Group]:
    """Groups of a feature: its values where they are few, else bins between its quantiles; beyond them; missing."""
    known = before[~np.isnan(before)]
    values = np.unique(known)
    groups = [_Group((Condition(name, "missing"),), np.isnan(before), np.isnan(now))]
    if not values.size:
        groups.append(_Group((Condition(name, "present"),), ~np.isnan(before), ~np.isnan(now)))
        return [group for group in groups if _is_large(group)]
    if values.size <= FEW:
        cuts = [(f"= {value:g}", value, value) for value in values.tolist()]
        between = (before > values[0]) & ~np.isin(before, values), (now > values[0]) & ~np.isin(now, values)
        inside = [side & (column < values[-1]) for side, column in zip(between, (before, now), strict=True)]
        groups.append(_Group((Condition(name, "of a new value"),), inside[0], inside[1]))
    else:
        edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, BINS + 1)))
        starts = np.nextafter(edges, np.inf)
        starts[0] = edges[0]
        spans = zip(starts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=False)
        cuts = [(f"from {low:g} to {high:g}", start, high) for start, low, high in spans]
    groups.append(_Group((Condition(name, f"below {values[0]:g}"),), before < values[0], now < values[0]))
    groups.append(_Group((Condition(name, f"above {values[-1]:g}"),), before > values[-1], now > values[-1]))
    for text, low, high in cuts:
        groups.append(
            _Group((Condition(name, text),), (before >= low) & (before <= high), (now >= low) & (now <= high))
        )
    return [group for group in groups if _is_large(group)]


def _values(name: str, before: NDArray[np.str_], now: NDArray[np.str_]) -> list[_Group]:
    values, counts = np.unique(np.concatenate((before, now)), return_counts=True)
    taken = values[np.argsort(-counts, kind="stable")][:MOST_VALUES].tolist()
    groups = [_Group((Condition(name, value),), before == value, now == value) for value in taken]
    return [group for group in groups if _is_large(group)]


def _is_large(group: _Group) -> bool:
    return int(group.now.sum()) >= LEAST_ROWS and not (group.now.all() and group.before.all())


def _both(one: _Group, other: _Group) -> _Group:
    """Rows of both groups; without conditions where the groups are of one column."""
    if {c.column for c in one.conditions} & {c.column for c in other.conditions}:
        return _Group((), one.before, one.now)
    conditions = tuple(sorted((*one.conditions, *other.conditions), key=lambda c: (c.column, c.value)))
    return _Group(conditions, one.before & other.before, one.now & other.now)


def _cause(group: _Group, before: NDArray[np.float64], now: NDArray[np.float64]) -> Cause:
    level, rise = float(before.mean()), float(now.mean() - before.mean())
    was, rows_before = before[group.before], float(group.before.mean())
    losses, rows_now = now[group.now], float(group.now.mean())
    base = (float(was.sum()) + PRIOR_ROWS * level) / (len(was) + PRIOR_ROWS)
    worse = float((losses - base).sum()) / len(now)
    explained = worse + (rows_now - rows_before) * (base - level)
    share = explained / rise
    # One standard error less: of many groups, some look guilty by chance.
    spread = float(((losses - base) ** 2).sum()) / len(now) - worse**2
    variance = (float(was.var()) if len(was) > 1 else 0.0) * len(was) / (len(was) + PRIOR_ROWS) ** 2
    error = (max(spread, 0.0) / len(now) + rows_now**2 * variance) ** 0.5
    known = min(rows_before / rows_now, 1.0) if rows_now else 1.0
    penalty = rows_now * (BREADTH + KNOWN * known) + SECOND * max(len(group.conditions) - 1, 0)
    places = np.flatnonzero(group.now)
    return Cause(
        conditions=list(group.conditions),
        share=share,
        score=min(share - error / rise, 1.0) - penalty,
        rows_before=rows_before,
        rows_now=rows_now,
        loss_before=float(was.mean()) if len(was) else None,
        loss_now=float(losses.mean()) if len(losses) else None,
        examples=places[np.argsort(-losses, kind="stable")[:EXAMPLES]].tolist(),
    )


def _distinct(causes: Sequence[Cause], groups: Mapping[tuple[Condition, ...], _Group]) -> list[Cause]:
    """The best causes; one whose rows are nearly those of a better one is named with it."""
    kept: list[tuple[Cause, _Group]] = []
    also: dict[int, list[Condition]] = {}
    for cause in causes:
        group = groups[tuple(cause.conditions)]
        twin = next((at for at, (_, other) in enumerate(kept) if _overlap(group, other) >= SAME_ROWS), None)
        if twin is not None:
            named = {c.column for c in (*kept[twin][0].conditions, *also.get(twin, []))}
            also.setdefault(twin, []).extend(c for c in cause.conditions if c.column not in named)
        elif len(kept) < SHOWN:
            kept.append((cause, group))
    return [msgspec.structs.replace(cause, also=also.get(at, [])) for at, (cause, _) in enumerate(kept)]


def _overlap(one: _Group, other: _Group) -> float:
    return min(_jaccard(one.before, other.before), _jaccard(one.now, other.now))


def _jaccard(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0
