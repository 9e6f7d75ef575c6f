"""The watch over sources of labels: what it finds, what it lets be, and that it goes on where it stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tailrace.contracts.retraining import Quarantined
from tailrace.core.label_sources import LabelBlock, LabelSources, SourceFinding
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.quarantine import distrusted
from tailrace.core.source_bets import Pairs, log_e_values, pairs
from tailrace.core.source_state import LabelSourcesData
from tailrace.core.trust import Trust

HOUR_MS = 3_600_000
NAMES = ("a", "b", "c")
SHARES = (0.5, 0.3, 0.2)


class Sources:
    """Three sources of different honest errors, hour by hour."""

    def __init__(self, seed: int = 1, trust: dict[str, Trust] | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.book = SourceBook(trust or {})
        self.codes = self.book.codes(NAMES)
        self.hour = 0

    def block(self, flips: Sequence[float] = (0.0, 0.0, 0.0), **changes: Any) -> LabelBlock:
        rng, n = self.rng, int(changes.get("n", 120))
        source = rng.choice(3, n, p=changes.get("shares", SHARES))
        scores = 1.0 / (1.0 + np.exp(2.0 - 3.0 * rng.normal(size=n)))
        positive = (rng.random(n) < scores) ^ (rng.random(n) < np.array([0.0, 0.01, 0.03])[source])
        positive ^= rng.random(n) < np.array(flips)[source]
        means = np.array(changes.get("delays_h", (1.0, 1.0, 1.0)))
        delay_ms = (rng.exponential(means[source]) * HOUR_MS).astype(np.int64)
        start = self.hour * HOUR_MS
        self.hour += 1
        times = start + np.arange(n) * (HOUR_MS // (n + 1))
        return LabelBlock(start, start + HOUR_MS, times, scores, positive, self.codes[source], delay_ms, n)

    def play(self, state: LabelSources, hours: int, *args: Any, **changes: Any) -> list[SourceFinding]:
        return [one for _ in range(hours) for one in state.judge(self.block(*args, **changes), self.book)]


def test_a_source_that_flips_labels_is_named_with_its_begin_and_size_and_cleared_once_it_is_honest() -> None:
    sources, state = Sources(), LabelSources()
    assert [] == sources.play(state, 200)
    found = sources.play(state, 48, (0.0, 0.2, 0.0))
    assert [("b", "flips", False)] == [(one.source, one.subject, one.resolved) for one in found]
    assert abs(found[0].since_ms // HOUR_MS - 200) <= 3
    assert found[0].value == pytest.approx(0.2, abs=0.1)
    assert [Quarantined(source="b", since_ms=found[0].since_ms)] == state.quarantined
    assert [] == sources.play(state, 100, (0.0, 0.2, 0.0))
    cleared = sources.play(state, 150)
    assert [("b", "flips", True)] == [(one.source, one.subject, one.resolved) for one in cleared]
    assert cleared[0].found_ms == state.quarantined[0].until_ms


def test_honest_drift_of_the_same_size_befalls_all_sources_and_accuses_none() -> None:
    sources, state = Sources(2), LabelSources()
    found = (
        sources.play(state, 150) + sources.play(state, 150, (0.06, 0.06, 0.06)) + sources.play(state, 100, (0.3,) * 3)
    )
    assert [] == found
    assert [] == state.accuse(_joined([sources.block((0.3, 0.3, 0.3)) for _ in range(12)]), sources.book)


def test_what_a_rise_of_the_loss_is_laid_to_is_found_with_fewer_labels_than_an_alarm_needs() -> None:
    sources, state = Sources(3), LabelSources()
    sources.play(state, 200)
    blocks = [sources.block((0.0, 0.2, 0.0)) for _ in range(5)]
    assert [] == [one for block in blocks for one in state.judge(block, sources.book)]
    accused = state.accuse(_joined(blocks), sources.book)
    assert [("b", "flips")] == [(one.source, one.subject) for one in accused]
    assert [Quarantined(source="b", since_ms=200 * HOUR_MS)] == state.quarantined
    assert [] == state.accuse(_joined(blocks), sources.book)


def test_a_source_is_held_against_those_at_least_as_trusted_alone() -> None:
    # Two users lie together. Against one another and the analyst neither would stand out as far.
    trust: dict[str, Trust] = {"a": "human", "b": "user", "c": "user"}
    sources, state = Sources(4, trust), LabelSources()
    sources.play(state, 200)
    found = sources.play(state, 100, (0.0, 0.2, 0.2))
    assert {"b", "c"} == {one.source for one in found}
    sources, state = Sources(4, trust), LabelSources()
    sources.play(state, 200)
    assert [] == [one for one in sources.play(state, 100, (0.2, 0.0, 0.0)) if one.source != "a"]


def test_a_source_that_reports_five_times_as_much_is_found_and_one_that_goes_silent_accuses_nobody() -> None:
    sources, state = Sources(5), LabelSources()
    assert [] == sources.play(state, 7 * 24, n=60)
    assert [] == sources.play(state, 48, n=36, shares=(0.0, 0.6, 0.4))
    sources, state = Sources(5), LabelSources()
    assert [] == sources.play(state, 7 * 24, n=60)

    def flooded() -> LabelBlock:
        block = sources.block(n=180, shares=(0.15, 0.1, 0.75))
        return block._replace(predictions=200)

    found = [one for _ in range(49) for one in state.judge(flooded(), sources.book)]
    assert ("c", "volume") in {(one.source, one.subject) for one in found}


def test_labels_that_come_far_sooner_from_one_source_are_found_and_from_all_are_not() -> None:
    sources, state = Sources(6), LabelSources()
    assert [] == sources.play(state, 5 * 24)
    found = sources.play(state, 49, delays_h=(1.0, 0.01, 1.0))
    assert {("b", "sooner")} == {(one.source, one.subject) for one in found}
    sources, state = Sources(6), LabelSources()
    sources.play(state, 5 * 24)
    assert [] == sources.play(state, 49, delays_h=(0.02, 0.02, 0.02))


def test_a_restored_watch_goes_on_exactly_where_it_stood() -> None:
    sources, one = Sources(7), LabelSources()
    sources.play(one, 210)
    two = LabelSources(msgspec.json.decode(msgspec.json.encode(one.data), type=LabelSourcesData))
    for _ in range(60):
        block = sources.block((0.0, 0.0, 0.25))
        assert one.judge(block, sources.book) == two.judge(block, sources.book)
    assert one.data == two.data
    assert one.quarantined


def test_the_same_blocks_give_the_same_findings_whatever_codes_sources_have() -> None:
    found = []
    for names in (NAMES, NAMES[::-1]):
        sources, state = Sources(8), LabelSources()
        other = SourceBook({})
        other.codes(names)
        recode = np.zeros(256, np.uint8)
        recode[sources.codes] = other.codes(NAMES)
        told = []
        for hour in range(240):
            block = sources.block((0.0, 0.3 if hour > 200 else 0.0, 0.0))
            told += state.judge(block._replace(source=recode[block.source]), other)
        found.append((told, state.data))
    assert found[0] == found[1]
    assert found[0][0]


marks = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30)


@given(marks, marks)
def test_pairs_are_those_of_the_naive_loop(own: list[tuple[bool, int]], other: list[tuple[bool, int]]) -> None:
    usual = np.array([0.01, 0.1, 0.3, 0.5])
    found = pairs(*_columns(own), *_columns(other), usual)
    expected = []
    for cell in range(4):
        mine, theirs = ([mark for mark, of in column if of == cell] for column in (own, other))
        count = min(len(mine), len(theirs))
        for at in range(count):
            one, two = _run(mine, at, count), _run(theirs, at, count)
            expected.append((sum(one) / len(one) - sum(two) / len(two), usual[cell], len(one), len(two)))
    told = zip(*(column.tolist() for column in (found.differences, found.usual, found.own, found.other)), strict=True)
    assert expected == list(told)


def test_the_bets_are_fair_where_the_difference_is_what_is_allowed() -> None:
    # The mean of an e-value is at most 1 under every law in the null; here its edge, cell by cell.
    rng, limit = np.random.default_rng(9), 0.05
    for share in (0.02, 0.2, 0.5):
        own, other = rng.random(40_000) < share + limit, rng.random(40_000) < share
        differences = own.astype(np.float64) - other
        one = np.ones(1)
        values = np.array(
            [np.exp(log_e_values(Pairs(np.array([value]), share * one, one, one), limit)) for value in (-1.0, 0.0, 1.0)]
        )
        mean = values[(differences + 1).astype(np.int64)].mean(axis=0)
        assert np.all(mean <= 1.01)


def test_quarantines_hold_labels_of_their_source_and_span() -> None:
    spans = [Quarantined(source="b", since_ms=10, until_ms=20), Quarantined(source="c", since_ms=15)]
    source, times = np.array([2, 2, 2, 3, 3, 0], np.uint8), np.array([9, 10, 20, 14, 10**15, 12])
    told = distrusted(spans, ["", "(others)", "b", "c"], source, times)
    assert [False, True, False, False, True, False] == told.tolist()
    assert not distrusted(spans, [], source, times).any()


def _joined(blocks: Sequence[LabelBlock]) -> LabelBlock:
    columns = (np.concatenate(column) for column in list(zip(*blocks, strict=True))[2:7])
    return LabelBlock(blocks[0].start_ms, blocks[-1].end_ms, *columns, sum(block.predictions for block in blocks))


def _columns(column: list[tuple[bool, int]]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    return np.array([mark for mark, _ in column], np.bool_), np.array([cell for _, cell in column], np.int64)


def _run(column: list[bool], at: int, count: int) -> list[bool]:
    return column[at * len(column) // count : (at + 1) * len(column) // count]
