"""Root causes: twenty planted faults; how often is the right one ranked first, and among the first three?

    python -m load_tests.studies.root_cause [--seeds 5] [--json]

A stream of scored payments with eight features, two slices and four attributes of upstream. Half-way one thing
breaks: a concept changes in a slice, a feature goes missing or changes its unit, a view turns stale, a bad model is
deployed, a source of outcomes lies. A cause counts as right when its conditions name what was broken, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from load_tests.studies.report import Figure, report
from tailrace.core.loss_detectors import LOSS_CAP, log_losses
from tailrace.core.root_cause import Cause, Sample, explain

NAMES = ("amount", "hour", "payments_1d", "amount_7d", "distance", "age", "device_risk", "tenure")
WEIGHTS = np.array([0.9, 0.1, 0.6, 0.5, 0.7, -0.4, 0.8, -0.6])
ROWS_BEFORE, ROWS_NOW = 20_000, 10_000
FIRST, FIRST_THREE = 16, 19
"""Bars: of twenty faults."""


class Stream(NamedTuple):
    """Payments: true inputs float64 (n, d) in standard units, what the model sees of them, attributes and labels."""

    true: NDArray[np.float64]
    seen: NDArray[np.float64]
    attributes: dict[str, NDArray[np.str_]]
    labels: NDArray[np.bool_]
    rng: np.random.Generator


class Fault(NamedTuple):
    """What breaks, and the conditions that name it: sets of (column, value), a value of "*" meaning any."""

    name: str
    plant: Callable[[Stream], NDArray[np.float64]]
    right: tuple[frozenset[tuple[str, str]], ...]


def stream(n: int, rng: np.random.Generator) -> Stream:
    """Payments before anything breaks."""
    true = rng.normal(size=(n, len(NAMES)))
    true[:, 3] = 0.7 * true[:, 0] + 0.7 * true[:, 3]
    attributes = {
        "country": rng.choice(["FR", "DE", "US", "BR", "IN", "SE"], n, p=[0.25, 0.2, 0.2, 0.15, 0.15, 0.05]),
        "channel": rng.choice(["web", "app", "shop"], n, p=[0.5, 0.35, 0.15]),
        "model_version": np.full(n, "7"),
        "degraded": np.full(n, "none"),
        "stale": np.full(n, "none"),
        "source": rng.choice(["bank", "desk", "partner"], n, p=[0.6, 0.25, 0.15]),
    }
    attributes = {name: values.astype("<U16") for name, values in attributes.items()}
    return Stream(true, true.copy(), attributes, rng.random(n) < _probability(true), rng)


def _probability(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(2.0 - inputs @ WEIGHTS)))


def _scores(now: Stream) -> NDArray[np.float64]:
    """The model, which knows the law exactly and takes what is missing for something low."""
    return _probability(np.nan_to_num(now.seen, nan=-2.0))


def _concept(**where: str) -> Callable[[Stream], NDArray[np.float64]]:
    """In a slice, labels are drawn anew at even odds."""

    def plant(now: Stream) -> NDArray[np.float64]:
        rows = np.all([now.attributes[column] == value for column, value in where.items()], axis=0)
        now.labels[rows] = now.rng.random(int(rows.sum())) < 0.5
        return _scores(now)

    return plant


def _region(column: int, above: float) -> Callable[[Stream], NDArray[np.float64]]:
    """Where a feature is large, labels turn into their opposite."""

    def plant(now: Stream) -> NDArray[np.float64]:
        rows = now.true[:, column] > above
        now.labels[rows] = ~now.labels[rows]
        return _scores(now)

    return plant


def _broken(
    column: int, change: Callable[[NDArray[np.float64]], NDArray[np.float64]], share: float = 1.0, **where: str
) -> Callable[[Stream], NDArray[np.float64]]:
    """What the model sees of a feature is wrong, in some rows or in a share of all."""

    def plant(now: Stream) -> NDArray[np.float64]:
        rows = now.rng.random(len(now.labels)) < share
        for name, value in where.items():
            rows &= now.attributes[name] == value
        now.seen[rows, column] = change(now.seen[rows, column])
        return _scores(now)

    return plant


def _missing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(len(values), np.nan)


def _view(attribute: str, share: float) -> Callable[[Stream], NDArray[np.float64]]:
    """A view gives another row's values in a share of all rows, and upstream says so."""

    def plant(now: Stream) -> NDArray[np.float64]:
        rows = now.rng.random(len(now.labels)) < share
        now.seen[rows, 2:4] = now.rng.permutation(now.seen)[rows, 2:4]
        now.seen[rows, 6] = 0.0
        now.attributes[attribute][rows] = "card_stats"
        return _scores(now)

    return plant


def _deployed(share: float) -> Callable[[Stream], NDArray[np.float64]]:
    """A model that has learnt the half of it serves a share of the traffic."""

    def plant(now: Stream) -> NDArray[np.float64]:
        scores = _scores(now)
        rows = now.rng.random(len(now.labels)) < share
        now.attributes["model_version"][rows] = "8"
        scores[rows] = _probability(now.seen * np.array([1, 1, 1, 1, -1, 1, -1, 1]))[rows]
        return scores

    return plant


def _lies(source: str, share: float) -> Callable[[Stream], NDArray[np.float64]]:
    """A source reports the opposite for a share of its outcomes."""

    def plant(now: Stream) -> NDArray[np.float64]:
        rows = (now.attributes["source"] == source) & (now.rng.random(len(now.labels)) < share)
        now.labels[rows] = ~now.labels[rows]
        return _scores(now)

    return plant


def _newcomer(now: Stream) -> NDArray[np.float64]:
    """A value that was never there, with a concept of its own."""
    rows = now.rng.random(len(now.labels)) < 0.1
    now.attributes["channel"][rows] = "kiosk"
    now.labels[rows] = now.rng.random(int(rows.sum())) < 0.6
    return _scores(now)


def _named(*conditions: tuple[str, str]) -> tuple[frozenset[tuple[str, str]], ...]:
    return (frozenset(conditions),)


def _either(*conditions: tuple[str, str]) -> tuple[frozenset[tuple[str, str]], ...]:
    return tuple(frozenset([condition]) for condition in conditions)


FAULTS = (
    Fault("concept of FR", _concept(country="FR"), _named(("country", "FR"))),
    Fault("concept of BR", _concept(country="BR"), _named(("country", "BR"))),
    Fault("concept of SE, 5 % of rows", _concept(country="SE"), _named(("country", "SE"))),
    Fault("concept of app", _concept(channel="app"), _named(("channel", "app"))),
    Fault(
        "concept of DE in the app", _concept(country="DE", channel="app"), _named(("channel", "app"), ("country", "DE"))
    ),
    Fault(
        "concept of US in shops", _concept(country="US", channel="shop"), _named(("channel", "shop"), ("country", "US"))
    ),
    Fault("concept of large distances", _region(4, 1.2), _named(("distance", "*"))),
    Fault("amount missing in a quarter", _broken(0, _missing, 0.25), _named(("amount", "missing"))),
    Fault("device_risk missing", _broken(6, _missing), _named(("device_risk", "missing"))),
    Fault(
        "tenure missing in the app",
        _broken(7, _missing, channel="app"),
        (*_named(("tenure", "missing")), *_named(("channel", "app"), ("tenure", "missing"))),
    ),
    Fault("distance in another unit", _broken(4, lambda v: v * 100.0), _named(("distance", "*"))),
    Fault(
        "amount in another unit in IN",
        _broken(0, lambda v: v * 80.0, country="IN"),
        (*_named(("amount", "*"), ("country", "IN")), *_named(("country", "IN"))),
    ),
    Fault("distance stuck at a value", _broken(4, lambda v: np.full(len(v), 3.0), 0.5), _named(("distance", "*"))),
    Fault("amount beyond its range in a tenth", _broken(0, lambda v: v + 9.0, 0.1), _named(("amount", "*"))),
    Fault("stale view", _view("stale", 0.4), _named(("stale", "card_stats"))),
    Fault("degraded view", _view("degraded", 0.25), _named(("degraded", "card_stats"))),
    Fault("bad model for all", _deployed(1.0), _named(("model_version", "8"))),
    Fault("bad model for a fifth", _deployed(0.2), _named(("model_version", "8"))),
    Fault("source partner lies", _lies("partner", 0.4), _named(("source", "partner"))),
    Fault("new channel", _newcomer, _named(("channel", "kiosk"))),
)


def rank(fault: Fault, seed: int) -> int:
    """Place of the right cause, from 1; 0 where it is not among those shown."""
    rng = np.random.default_rng(seed)
    before, now = stream(ROWS_BEFORE, rng), stream(ROWS_NOW, rng)
    scores = fault.plant(now)
    found = explain(NAMES, _sample(before, _scores(before)), _sample(now, scores)).causes
    return next((place for place, cause in enumerate(found, 1) if _is_right(cause, fault)), 0)


def _sample(of: Stream, scores: NDArray[np.float64]) -> Sample:
    clipped = np.clip(scores, 1e-6, 1.0 - 1e-6)
    loss = np.minimum(log_losses(clipped, of.labels), LOSS_CAP)
    return Sample(loss, of.seen.astype(np.float32), of.attributes)


def _is_right(cause: Cause, fault: Fault) -> bool:
    return any(
        len(cause.conditions) == len(named)
        and all(
            any(c.column == column and value in ("*", c.value) for column, value in named) for c in cause.conditions
        )
        for named in fault.right
    )


def figures(seeds: int) -> list[Figure]:
    """The worst place of the right cause over some seeds, infinite where it is not among those shown, and how often it leads."""
    places = {fault.name: [rank(fault, seed) for seed in range(seeds)] for fault in FAULTS}
    first = min(sum(of[seed] == 1 for of in places.values()) for seed in range(seeds))
    three = min(sum(1 <= of[seed] <= 3 for of in places.values()) for seed in range(seeds))
    worst = [Figure(f"worst place: {name}", max(of) if min(of) else math.inf) for name, of in places.items()]
    return [
        *worst,
        Figure(f"right cause first, of {len(FAULTS)} faults", first, FIRST, ">="),
        Figure(f"right cause among the first three, of {len(FAULTS)} faults", three, FIRST_THREE, ">="),
    ]


if __name__ == "__main__":
    report(figures)
