"""The join's truth table (docs: W=100, S=5, L=10, C=1000, H=50), row by row, with predictions at t=0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.joins import Change, JoinSpec, JoinState, Outcome, Scored

SPEC = JoinSpec(window_ms=100, skew_ms=5, lateness_ms=10, correction_ms=1000, hold_ms=50)


def prediction(variant: str = "champion", *, activated: bool = True, blocked: bool = False) -> Scored:
    return Scored(f"e:{variant}", "e", "k", {}, {}, 0, variant, "1", 0.5, True, activated=activated, blocked=blocked)


def outcome(time_ms: int, value: float = 1.0, revision: int = 0, *, retract: bool = False) -> Outcome:
    return Outcome(revision, retract, value, time_ms)


def play(*steps: Scored | Outcome | int, spec: JoinSpec = SPEC) -> tuple[JoinState, list[Change]]:
    """Predictions and outcomes arrive, integers move the watermark."""
    state, changes = JoinState(spec), []
    for step in steps:
        if isinstance(step, int):
            changes += state.advance(step)
        elif isinstance(step, Scored):
            changes += state.predict(step)
        else:
            changes += state.observe("e", step)
    return state, changes


def seen(changes: list[Change]) -> list[tuple[float | None, str, int]]:
    return [(c.label, c.status, c.version) for c in changes]


P = prediction()
ROWS: dict[str, tuple[list[Scored | Outcome | int], list[tuple[float | None, str, int]], dict[str, int]]] = {
    "1": ([P, outcome(5), 110], [(1, "provisional", 1), (1, "final", 2)], {}),
    "2a": ([P, 109], [], {}),
    "2b": ([P, 110], [(0, "final", 1)], {}),
    "3": ([outcome(5), P, 110], [(1, "provisional", 1), (1, "final", 2)], {}),
    "3, before the watermark moves": ([outcome(5), P], [], {}),
    "4": ([outcome(5), 55, P, 110], [(0, "final", 1)], {"orphan": 1}),
    "5a": ([P, outcome(99)], [(1, "provisional", 1)], {}),
    "5b": ([P, outcome(100), 110], [(0, "final", 1)], {"out_of_window": 1}),
    "6a": ([P, outcome(-5)], [(1, "provisional", 1)], {}),
    "6b": ([P, outcome(-6), 110], [(0, "final", 1)], {"out_of_window": 1}),
    "7": ([P, outcome(5), outcome(5)], [(1, "provisional", 1)], {"duplicate": 1}),
    "8": (
        [P, outcome(5, 1), outcome(5, 3, 1)],
        [(1, "provisional", 1), (3, "provisional", 2)],
        {},
    ),
    "9": (
        [P, outcome(5, 3, 1), outcome(5, 1)],
        [(3, "provisional", 1)],
        {"stale_revision": 1},
    ),
    "10a": (
        [P, outcome(5, 1), outcome(5, 2)],
        [(1, "provisional", 1), (2, "provisional", 2)],
        {"conflict": 1},
    ),
    "10b": (
        [P, outcome(5, 2), outcome(5, 1)],
        [(2, "provisional", 1)],
        {"conflict": 1},
    ),
    "11": (
        [P, outcome(5), outcome(6, 1, 1, retract=True), 110],
        [(1, "provisional", 1), (None, "pending", 2), (0, "final", 3)],
        {},
    ),
    "12": ([P, 110, outcome(50)], [(0, "final", 1), (1, "final", 2)], {}),
    "13": (
        [P, 110, outcome(50), outcome(50, 1, 1, retract=True)],
        [(0, "final", 1), (1, "final", 2), (0, "final", 3)],
        {},
    ),
    "14": ([P, 110, 1110, outcome(50)], [(0, "final", 1)], {"too_late": 1}),
    "15": ([P, P, 110], [(0, "final", 1)], {"duplicate": 1}),
    "19": ([prediction(activated=False), 10_000], [(None, "censored", 1)], {}),
    "20": ([prediction(blocked=True), 10_000], [(None, "censored", 1)], {}),
    "21": (
        [P, prediction("shadow"), outcome(5)],
        [(1, "provisional", 1), (1, "provisional", 1)],
        {},
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_truth_table_row_gives_its_emissions(row: str) -> None:
    steps, expected, counts = ROWS[row]
    state, changes = play(*steps)
    assert (expected, counts) == (seen(changes), dict(state.counts))


ARRIVALS: list[Scored | Outcome | int] = [
    P,
    prediction("shadow"),
    outcome(5),
    outcome(7, 0, 1),
    outcome(9, 1, 1),
    outcome(500),
    outcome(7, 0, 1),
]


@given(st.permutations(ARRIVALS))
def test_arrival_order_does_not_change_the_final_table(order: list[Scored | Outcome | int]) -> None:
    def final(changes: list[Change]) -> dict[str, tuple[float | None, str]]:
        return {c.prediction.prediction_id: (c.label, c.status) for c in changes}

    _, changes = play(*order, 110)
    assert final(play(*ARRIVALS, 110)[1]) == final(changes)
    for identity in ("e:champion", "e:shadow"):
        versions = [c.version for c in changes if c.prediction.prediction_id == identity]
        assert list(range(1, len(versions) + 1)) == versions


def test_restored_event_is_still_judged_by_the_outcome_that_came_first() -> None:
    state, _ = play(outcome(5), P)
    restored = JoinState(SPEC)
    restored.restore("e", state.events["e"])
    assert [(1, "provisional", 1)] == seen(restored.advance(20))


def test_event_is_forgotten_when_its_horizon_has_passed() -> None:
    state, _ = play(P, outcome(5), 110, 1109)
    assert [] == state.forget()
    state.advance(1110)
    assert 1 == len(state.forget())
    assert {} == state.events
