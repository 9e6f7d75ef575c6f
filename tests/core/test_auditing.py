"""The auditor finds what was planted, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.auditing import (
    Positions,
    audit_chain,
    audit_counts,
    audit_epochs,
    audit_events,
    audit_identity,
    audit_labels,
    audit_repeats,
    recount,
)


def _at(*places: tuple[int, int]) -> Positions:
    table = np.array(places, np.int64).reshape(-1, 2)
    return Positions(table[:, 0], table[:, 1])


def _ids(*names: str) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
    return np.array([name.encode() for name in names], np.bytes_)


def test_an_event_is_predicted_or_dead_but_not_both_and_not_neither() -> None:
    events = _at((0, 0), (0, 1), (1, 0), (1, 5))
    assert [] == audit_events("e", events, _at((0, 0), (1, 0), (1, 5)), _at((0, 1)))
    hole, double = audit_events("e", events, _at((0, 0), (1, 0)), _at((0, 1), (1, 0)))
    assert ("hole", ("e[1]@5",)) == (hole.problem, hole.examples)
    assert ("double", ("e[1]@0",)) == (double.problem, double.examples)


def test_a_prediction_of_no_event_is_found() -> None:
    (stranger,) = audit_events("e", _at((0, 0)), _at((0, 0), (0, 9)), _at())
    assert ("mismatch", ("e[0]@9",)) == (stranger.problem, stranger.examples)


def test_a_prediction_bears_the_id_of_its_event() -> None:
    events, ids = _at((0, 0), (0, 1)), _ids("a", "b")
    assert [] == audit_identity("e", events, ids, _at((0, 1), (0, 0), (3, 3)), _ids("b", "a", "x"))
    (wrong,) = audit_identity("e", events, ids, _at((0, 1), (0, 0)), _ids("a", "a"))
    assert ("e[0]@1",) == wrong.examples


def test_label_versions_count_up_by_one_from_zero_or_one() -> None:
    known = _ids("p", "q")
    assert [] == audit_labels(_ids("p", "q", "p", "q"), np.array([1, 0, 2, 1]), known)
    found = audit_labels(_ids("p", "p", "q", "q", "x"), np.array([1, 1, 1, 3, 1]), known)
    assert [("double", ("p",)), ("hole", ("q",)), ("mismatch", ("x",))] == [(f.problem, f.examples) for f in found]


def test_a_label_that_begins_at_its_second_version_has_a_hole() -> None:
    (hole,) = audit_labels(_ids("p"), np.array([2]), _ids("p"))
    assert "hole" == hole.problem


def test_epochs_may_miss_what_compaction_took_but_never_fall() -> None:
    assert [] == audit_epochs(np.array([0, 1, 5]), np.array([1, 2, 6]))
    assert 1 == len(audit_epochs(np.array([0, 1]), np.array([1, 1])))
    assert 1 == len(audit_epochs(np.array([0, 1]), np.array([1, 3])))


def test_rows_of_one_event_must_agree() -> None:
    values = np.array([[1.0, np.nan], [1.0, np.nan], [2.0, 2.0], [2.0, 3.0]])
    (double,) = audit_repeats("e", _at((0, 0), (0, 0), (0, 1), (0, 1)), values)
    assert ("e[0]@1",) == double.examples


def test_a_window_counted_twice_is_named_with_both_figures() -> None:
    events, keys, times = _at((0, 0), (0, 1), (0, 2)), np.array([7, 7, 7]), np.array([0, 5, 10])
    assert [] == audit_counts("e", events, keys, times, np.array([1.0, 2.0, 2.0]), 10, "n")
    (wrong,) = audit_counts("e", events, keys, times, np.array([1.0, 3.0, 2.0]), 10, "n")
    assert ("e[0]@1: served 3, counted 2",) == wrong.examples


def test_a_changed_audit_entry_breaks_the_chain_after_it() -> None:
    assert [] == audit_chain(["", "h0", "h1"], ["h0", "h1", "h2"])
    (broken,) = audit_chain(["", "h0", "h1"], ["h0", "forged", "h2"])
    assert ("entry 2",) == broken.examples


def naive(keys: list[int], times: list[int], span: int) -> list[int]:
    return [
        sum(k == keys[at] and times[at] - span < t <= times[at] for k, t in zip(keys[: at + 1], times, strict=False))
        for at in range(len(keys))
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-20, 20)), max_size=40), st.integers(1, 15))
def test_the_recount_equals_counting_one_by_one_in_any_order(rows: list[tuple[int, int]], span: int) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    keys, times = [k for k, _ in rows], [t for _, t in rows]
    assert naive(keys, times, span) == recount(np.array(keys, np.int64), np.array(times, np.int64), span).tolist()
