"""How far each feature and the score are from the training data, by which tests, and whether that is drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.monitors import PSI
from tailrace.core.reference import HOUR_MS, HOURS_OF_WEEK, Distribution, groups_of
from tailrace.core.same_hours import covered, references
from tailrace.core.two_samples import INDEPENDENT, DesignEffect, index_laws, ks, psi, rise, wasserstein

MIN_ROWS = 200
"""Rows below which nothing is judged, nor by training data of the same hours of the week: the laws are asymptotic."""
SHIFT = 0.05
"""Wasserstein distance, in ranges between the quartiles, from which a change matters."""
SHARE = 0.005
"""Rise of the share of missing or unknown values from which it matters."""
WEEK_MS = HOURS_OF_WEEK * HOUR_MS
MONTH_MS = 30 * 24 * HOUR_MS
DISTRIBUTION, COUNTER = 0.48, 0.02
"""Parts of the false alarms that are granted to each of two tests of the distribution, and of two counters."""

Counts = NDArray[np.int64]


class Sign(NamedTuple):
    """One thing that may be wrong with a subject: how much, from where on it alarms, and how far that is from before."""

    detector: str
    drifted: bool
    value: float
    limit: float
    size: float
    detail: str


class PSIFinding(NamedTuple):
    """How far a subject is from the reference: `value` is its index, `signs` say whether that is drift.

    `edges` cut the line into at most twenty bins; `reference` and `current` count rows by bin, the last of
    which takes the missing values. `ks` in [0, 1] and `shift`, in ranges between the quartiles, are those of
    the present values. `p_value` is that of the index and the distance together, for this subject alone.
    `design_effect` rows are worth one independent row.
    """

    subject: str
    value: float
    threshold: float
    rows: int
    edges: list[float]
    reference: list[int]
    current: list[int]
    ks: float
    shift: float
    p_value: float
    seasonal: bool
    design_effect: float
    signs: list[Sign]


def find(
    spec: PSI, subjects: Sequence[tuple[str, Distribution, Counts]], since_ms: int, until_ms: int
) -> list[PSIFinding]:
    """Every subject with how far it is from the training data; none below `MIN_ROWS` rows.

    Args:
        spec: Bounds.
        subjects: Names, what is known of each, and its counts: of each bin, of missing and of unknown values.
        since_ms: Event time of the beginning of the look, epoch milliseconds.
        until_ms: Its end. The longer it is, the more of the false alarms it may make.
    """
    rows = int(subjects[-1][2][:-1].sum()) if subjects else 0
    if rows < MIN_ROWS or until_ms <= since_ms:
        return []
    chance = spec.false_alarms * min((until_ms - since_ms) / MONTH_MS, 1.0) / len(subjects)
    compared_with = references([known for _, known, _ in subjects], covered(since_ms, until_ms), rows, MIN_ROWS)
    found = [
        _compare(*subject, *reference, until_ms - since_ms)
        for subject, reference in zip(subjects, compared_with, strict=True)
    ]
    used = np.array([max(int(((one.was + one.now) > 0).sum()) - 1, 1) for one in found], dtype=np.float64)
    laws = index_laws(DISTRIBUTION * chance, used, [one.effect for one in found])
    return [_judge(spec, one, law, chance) for one, law in zip(found, laws.tolist(), strict=True)]


class _Compared(NamedTuple):
    """A subject with its counts, those of the training data, both by group, and their design effect.

    Of independent rows a share varies by `part` times what one row does.
    """

    name: str
    known: Distribution
    counts: Counts
    reference: Counts
    seasonal: bool
    was: Counts
    now: Counts
    part: float
    effect: DesignEffect


def _compare(
    name: str, known: Distribution, counts: Counts, reference: Counts, seasonal: bool, span_ms: int
) -> _Compared:
    groups = groups_of(known)
    was, now = _grouped(reference, groups), _grouped(counts[:-1], groups)
    part = 1.0 / max(int(now.sum()), 1) + 1.0 / max(int(was.sum()), 1)
    effect = _effect(known, span_ms, int(now.sum()), int(was.sum()), seasonal=seasonal)
    return _Compared(name, known, counts, reference, seasonal, was, now, part, effect)


def _judge(spec: PSI, of: _Compared, law: float, chance: float) -> PSIFinding:
    """What is found of a subject, of whose statistic chance alone passes `law` as often as it may."""
    name, known, present = of.name, of.known, of.counts[:-2]
    index = psi(of.was, of.now, of.effect)
    distance = ks(of.reference[:-1], present, of.effect) if known.kind == "number" else None
    shift = _shift(known, of.reference[:-1], present)
    limit = max(spec.alarm, law * of.part)
    p_value = min(index.p_value, distance.p_value if distance else 1.0)
    matters = index.value >= spec.alarm or shift >= SHIFT
    drifted = p_value <= DISTRIBUTION * chance and matters
    against = "the training data of the same hours of the week" if of.seasonal else "the training data"
    detail = f"{name}: population stability index {index.value:.3f}, shift {shift:.2f} interquartile ranges against {against}"
    design_effect = max(of.effect.bins, of.effect.steps)
    signs = [
        Sign("PSI", drifted, index.value, limit, shift, detail),
        *_counters(name, known, of.counts, of.reference, chance, design_effect),
    ]
    groups = groups_of(known)
    cuts = np.flatnonzero(np.diff(groups[:-1]))
    edges = [known.edges[at] for at in cuts.tolist()]
    return PSIFinding(
        subject=name,
        value=index.value,
        threshold=limit,
        rows=int(of.now.sum()),
        edges=edges,
        reference=of.was.tolist(),
        current=of.now.tolist(),
        ks=distance.value if distance else 0.0,
        shift=shift,
        p_value=min(2.0 * p_value, 1.0),
        seasonal=of.seasonal,
        design_effect=design_effect,
        signs=signs,
    )


def _effect(known: Distribution, span_ms: int, rows: int, reference_rows: int, *, seasonal: bool) -> DesignEffect:
    """Design effect of a look and the reference together: the look's length, its rows, and those of the reference."""
    own = [one for one in known.dispersions if one.seasonal == seasonal]
    if not own or not (rows and reference_rows):
        return INDEPENDENT
    # What is correlated within a span is not from one to the next: the excess of longer ones falls as they grow.
    near = max((one for one in own if one.span_ms <= span_ms), key=lambda one: one.span_ms, default=own[0])
    season_ms = max(span_ms, WEEK_MS) if seasonal else span_ms
    times = max(near.spans * near.span_ms / season_ms, 1.0)
    # As many rows of a quiet day go together as of any other, so fewer are independent than its length would say.
    quiet = max(reference_rows / times / rows, 1.0)
    # Of twenty days some are there twice and others three times.
    least = math.floor(times) if seasonal else times
    scale = near.span_ms / span_ms * (quiet + 1.0 / least) / (1.0 / rows + 1.0 / reference_rows)
    return DesignEffect(1.0 + near.bins * scale, 1.0 + near.steps * scale, near.freedom, near.top)


def _counters(
    name: str, known: Distribution, counts: Counts, reference: Counts, chance: float, effect: float
) -> list[Sign]:
    """Signs of missing values and of values that are not known."""
    rows, missing, unknown = int(counts[:-1].sum()), int(counts[-2]), int(counts[-1])
    nulls = rise(int(reference[-1]), int(reference.sum()), missing, rows, effect)
    said = f"{name}: {missing:,} of {rows:,} values are missing"
    signs = [_counter("missing", nulls.value, nulls.p_value, chance, said)]
    if known.low is not None:
        category = known.kind == "category"
        # Against the smallest and largest of the training data one of them counts as outside; so does a code seen once.
        outside = rise(known.rare if category else 1, sum(known.counts), unknown, rows - missing, effect)
        what = "of no known category" if category else "outside the range of the training data"
        said = f"{name}: {unknown:,} of {rows - missing:,} values are {what}"
        detector = "unknown_category" if category else "out_of_range"
        signs.append(_counter(detector, outside.value, outside.p_value, chance, said))
    return signs


def _counter(detector: str, value: float, p_value: float, chance: float, detail: str) -> Sign:
    return Sign(detector, p_value <= COUNTER * chance and value >= SHARE, value, SHARE, value, detail)


def _grouped(counts: Counts, groups: Counts) -> Counts:
    return np.bincount(groups, weights=counts).astype(np.int64)


def _shift(known: Distribution, reference: Counts, present: Counts) -> float:
    """Wasserstein distance in units of the range between the quartiles; 0 for categories, whose order means nothing."""
    if known.kind == "category" or not known.edges:
        return 0.0
    edges = np.array(known.edges)
    low = known.low if known.low is not None else edges[0]
    high = known.high if known.high is not None else edges[-1]
    scale = known.scale if known.scale is not None else _spread(known)
    return wasserstein(reference, present, edges, low, high) / scale if scale else 0.0


def _spread(known: Distribution) -> float:
    """The range between the quartiles of a reference that does not say, as far as its bins tell."""
    reached = np.cumsum(known.counts) / max(sum(known.counts), 1)
    low, high = (min(int(np.searchsorted(reached, share)), len(known.edges) - 1) for share in (0.25, 0.75))
    return known.edges[high] - known.edges[low]
