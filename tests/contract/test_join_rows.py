"""The truth table of docs/join.md through the whole of feedback: in memory, killed after every step, packed as soon
as it is closed, and on Kafka.

W = 100 s, L = 10 s, C = 1000 s, S = 5 s; outcomes wait a day for their prediction. `p` stands at time 0.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from erasures import asked, told_of
from join_streams import (
    PATIENCE_S,
    START_MS,
    Driver,
    KafkaFeedback,
    MemoryFeedback,
    Step,
    labels,
    play,
    unattributed,
    use_case,
)

from tailrace.backends.codec import encode
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.core import closed_events
from tailrace.feedback import label_join

DAY_S = 86_400
APART_S = 3 * DAY_S
"""Rows are played one after the other in one stream: far enough apart that nothing of one is left for the next."""
Said = list[tuple[float | None, str, int]]


@pytest.fixture(scope="module", params=["memory", "killed", "packed", "kafka"])
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    folder = tmp_path_factory.mktemp("join")
    declared = use_case(folder, f"rows_{request.param}")
    if request.param == "packed":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(closed_events, "BLOCK", 1)
            patch.setattr(label_join, "HOUR_MS", 1)
            yield MemoryFeedback(declared)
        return
    if request.param != "kafka":
        yield MemoryFeedback(declared, killed=request.param == "killed")
        return
    on_kafka = KafkaFeedback(
        Settings(kafka_bootstrap=request.getfixturevalue("broker"), state_dir=folder, use_cases=folder), declared
    )
    yield on_kafka
    on_kafka.stop()


begins = itertools.count(1)


class Row:
    """One row being played."""

    def __init__(self, driver: Driver, name: str, *steps: Step) -> None:
        number = next(begins)
        self.name, self.begin_s, self._driver = f"{name}-{number}", APART_S * number, driver
        self.go_on(*steps)

    def go_on(self, *steps: Step) -> None:
        play(self._driver, self.begin_s, self.name, steps)
        self.said = labels(self._driver, self.name)
        self.aside = unattributed(self._driver, self.name)

    def of(self, prediction: str = "a", label: str = "value") -> Said:
        return self.said.get((prediction, label), [])

    def reasons(self, event: str = "a") -> list[str]:
        return [reason for name, reason in self.aside if name == event]


def p(event: str = "a", at_s: int = 0, topic: str = "predictions", **said: Any) -> Step:
    return Step(topic, at_s, {"event": event, **said})


def o(at_s: int, value: float = 1.0, revision: int = 0, *, withdrawn: bool = False) -> Step:
    return Step("reports", at_s, {"offer_id": "a", "value": value, "revision": revision, "withdrawn": withdrawn})


def order(name: str, at_s: int, amount: float, revision: int = 0, *, withdrawn: bool = False) -> Step:
    said = {"order_id": name, "offer_id": "a", "customer": "c", "amount": amount}
    return Step("orders", at_s, said | {"revision": revision, "withdrawn": withdrawn})


def wm(at_s: int) -> Step:
    return Step("", at_s)


PROVISIONAL, FINAL, PENDING, CENSORED = "provisional", "final", "pending", "censored"


def test_row_1_outcome_in_the_window_is_provisional_and_final_when_the_window_closes(driver: Driver) -> None:
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2)] == Row(driver, "1", p(), o(5), wm(110)).of()


def test_row_2_silence_is_negative_at_the_end_of_window_and_lateness_and_not_before(driver: Driver) -> None:
    assert [] == Row(driver, "2", p(), wm(109)).of()
    assert [(0, FINAL, 1)] == Row(driver, "2", p(), wm(109), wm(110)).of()


def test_row_3_outcome_before_its_prediction_gives_the_same_final_table(driver: Driver) -> None:
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2)] == Row(driver, "3", o(5), p(), wm(10), wm(110)).of()


def test_row_4_outcome_that_waited_in_vain_is_an_orphan_and_its_prediction_ends_negative(driver: Driver) -> None:
    row = Row(driver, "4", o(5), wm(DAY_S + 5), p(), wm(DAY_S + 10))
    assert ([(0, FINAL, 1)], ["orphan"]) == (row.of(), row.reasons())


def test_row_5_window_is_half_open(driver: Driver) -> None:
    assert [(1, PROVISIONAL, 1)] == Row(driver, "5", p(), o(99)).of()
    outside = Row(driver, "5", p(), o(100), wm(110))
    assert ([(0, FINAL, 1)], ["out_of_window"]) == (outside.of(), outside.reasons())


def test_row_6_clock_skew_is_tolerated_up_to_its_bound(driver: Driver) -> None:
    assert [(1, PROVISIONAL, 1)] == Row(driver, "6", p(), o(-5)).of()
    outside = Row(driver, "6", p(), o(-6), wm(110))
    assert ([(0, FINAL, 1)], ["out_of_window"]) == (outside.of(), outside.reasons())


def test_row_7_same_outcome_twice_changes_nothing(driver: Driver) -> None:
    assert [(1, PROVISIONAL, 1)] == Row(driver, "7", p(), o(5), o(5)).of()


def test_row_8_higher_revision_replaces_the_value(driver: Driver) -> None:
    assert [(1, PROVISIONAL, 1), (3, PROVISIONAL, 2)] == Row(driver, "8", p(), o(5, 1), o(5, 3, 1)).of()


def test_row_9_stale_revision_changes_nothing(driver: Driver) -> None:
    assert [(3, PROVISIONAL, 1)] == Row(driver, "9", p(), o(5, 3, 1), o(5, 1)).of()


def test_row_10_conflict_has_the_same_winner_in_both_orders(driver: Driver) -> None:
    assert (2, PROVISIONAL) == Row(driver, "10", p(), o(5, 1), o(5, 2)).of()[-1][:2]
    assert (2, PROVISIONAL) == Row(driver, "10", p(), o(5, 2), o(5, 1)).of()[-1][:2]


def test_row_11_outcome_taken_back_in_time_ends_negative(driver: Driver) -> None:
    row = Row(driver, "11", p(), o(5), o(6, 1, 1, withdrawn=True), wm(110))
    assert [(1, PROVISIONAL, 1), (None, PENDING, 2), (0, FINAL, 3)] == row.of()


def test_row_12_late_outcome_corrects_a_final_negative(driver: Driver) -> None:
    assert [(0, FINAL, 1), (1, FINAL, 2)] == Row(driver, "12", p(), wm(110), o(50)).of()


def test_row_13_correction_taken_back_is_final_negative_again(driver: Driver) -> None:
    row = Row(driver, "13", p(), wm(110), o(50), o(50, 1, 1, withdrawn=True))
    assert [(0, FINAL, 1), (1, FINAL, 2), (0, FINAL, 3)] == row.of()


def test_row_14_outcome_after_the_correction_horizon_is_too_late(driver: Driver) -> None:
    row = Row(driver, "14", p(), wm(110), wm(1110), o(50))
    assert ([(0, FINAL, 1)], ["too_late"]) == (row.of(), row.reasons())


def test_row_15_first_of_two_predictions_of_one_id_keeps_its_label(driver: Driver) -> None:
    assert [(0, FINAL, 1)] == Row(driver, "15", p(), p(), wm(110)).of()
    assert [(0, FINAL, 1)] == Row(driver, "15", p(), p(score=0.9), wm(110)).of()


def test_row_16_labels_with_windows_of_their_own_do_not_touch_each_other(driver: Driver) -> None:
    click = Step("clicks", 2, {"offer_id": "a", "clicked": True})
    row = Row(driver, "16", p(), click, wm(20), order("x", 40, 5.0), order("refund of x", 80, -5.0), wm(110))
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2)] == row.of(label="clicked")
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2)] == row.of(label="bought")
    assert [(5, PROVISIONAL, 1), (0, PROVISIONAL, 2), (0, FINAL, 3)] == row.of(label="revenue")
    assert [(0, FINAL, 1)] == row.of()
    assert ["out_of_window"] == row.reasons(), "the refund is outside of the window of `bought`"


def test_row_17_orders_of_one_prediction_are_reduced_by_each_label_as_it_says(driver: Driver) -> None:
    orders = [order("x", 20, 2.5), order("y", 10, 1.0)]
    for one in (orders, orders[::-1]):
        row = Row(driver, "17", p(), *one, wm(110))
        ends = {label: row.of(label=label)[-1][:2] for label in ("bought", "revenue", "largest", "newest")}
        assert {"bought": (1, FINAL), "revenue": (3.5, FINAL), "largest": (2.5, FINAL), "newest": (2.5, FINAL)} == ends


def test_row_17_order_revised_and_taken_back_counts_with_what_is_left_of_it(driver: Driver) -> None:
    steps = [order("x", 20, 2.5), order("y", 10, 1.0), order("x", 30, 4.0, 1), order("y", 40, 0.0, 1, withdrawn=True)]
    row = Row(driver, "17", p(), *steps, wm(110))
    assert [2.5, 3.5, 5.0, 4.0] == [value for value, status, _ in row.of(label="revenue") if status == PROVISIONAL]
    assert [(2.5, PROVISIONAL, 1), (4, PROVISIONAL, 2), (4, FINAL, 3)] == row.of(label="newest")


def test_row_18_order_of_a_customer_is_credited_to_the_offers_before_it(driver: Driver) -> None:
    row = Row(driver, "18", p("a", 0), order("x", 30, 1.0), p("b", 20), p("after", 40), wm(30), wm(160))
    assert {"a": 0.5, "b": 0.5, "after": 0.0} == _ends(row, "credit")
    assert {"a": 0.0, "b": 1.0, "after": 0.0} == _ends(row, "last_touch")
    assert {"a": 1.0, "b": 0.0, "after": 0.0} == _ends(row, "first_touch")


def test_row_18_revision_moves_the_credit_and_a_withdrawal_takes_it_back(driver: Driver) -> None:
    early, late = order("x", 30, 1.0), order("x", 10, 3.0, 1)
    offers = [p("a", 0), p("b", 20)]
    for one in ([early, wm(35), late, wm(40)], [early, late, wm(40)], [late, wm(35), early, wm(40)]):
        row = Row(driver, "18", *offers, *one, wm(130))
        assert {"a": 3.0, "b": 0.0} == _ends(row, "last_touch")
    row = Row(driver, "18", *offers, early, wm(35), order("x", 36, 0.0, 1, withdrawn=True), wm(40), wm(130))
    assert {"a": 0.0, "b": 0.0} == _ends(row, "last_touch")
    assert (None, PENDING) in [(value, status) for value, status, _ in row.of("b", "last_touch")]


def test_entity_outcome_judges_the_predictions_of_its_horizon_and_no_others(driver: Driver) -> None:
    lost = Step("lives", 120, {"customer": "c", "churned": True})
    offers = [p("early", 20), p("first", 21), p("other", 60, customer="d"), p("last", 120), p("after", 121)]
    row = Row(driver, "entity", *offers, lost, wm(120), wm(240))
    assert {"early": 0.0, "first": 1.0, "other": 0.0, "last": 1.0, "after": 0.0} == _ends(row, "churned")


def test_predictions_whose_window_is_cut_short_by_leaving_observation_are_censored(driver: Driver) -> None:
    moved = Step("lives", 150, {"customer": "c", "moved_away": True})
    lost = Step("lives", 60, {"customer": "c", "churned": True})
    row = Row(driver, "left", p("judged", 0), p("cut", 70), p("lost", 55), lost, moved, wm(150), wm(300))
    assert {"judged": 1.0, "cut": None, "lost": 1.0} == _ends(row, "churned")
    assert [(None, CENSORED, 1)] == row.of("cut", "churned")


def test_row_19_prediction_that_was_not_acted_upon_is_censored(driver: Driver) -> None:
    assert [(None, CENSORED, 1)] == Row(driver, "19", p(activated=False), wm(10_000)).of()


def test_row_20_prediction_that_blocked_its_outcome_is_censored(driver: Driver) -> None:
    assert [(None, CENSORED, 1)] == Row(driver, "20", p(blocked=True), wm(10_000)).of()


def test_row_21_shadow_of_the_same_request_is_judged_by_the_same_outcome(driver: Driver) -> None:
    row = Row(driver, "21", p(), p(topic="shadow", variant="shadow"), o(5), wm(110))
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2)] == row.of()
    assert row.of() == row.of("a:shadow")


def test_row_24_outcome_from_the_future_is_dead_lettered_and_moves_no_time(driver: Driver) -> None:
    far = Step("reports", 5_000 * DAY_S, {"offer_id": "a", "value": 1.0})
    row = Row(driver, "24", p(), far, wm(109))
    assert [] == row.of()
    letters = driver.read(f"{driver.use_case.name}.dead-letters")
    assert 1 == sum(row.name.encode() in (value or b"") for _, value in letters)


def test_rows_25_and_26_versions_are_contiguous_whoever_was_killed_or_rebalanced(driver: Driver) -> None:
    row = Row(driver, "25", p(), o(5), order("x", 7, 1.0), wm(110), o(50, 3, 1), order("x", 8, 2.0, 1), wm(120))
    if isinstance(driver, KafkaFeedback):
        driver.restart()
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2), (3, FINAL, 3)] == row.of()
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2), (2, FINAL, 3)] == row.of(label="revenue")
    for said in row.said.values():
        assert list(range(1, len(said) + 1)) == [version for _, _, version in said]


def test_row_29_what_is_kept_of_an_entity_is_erased_and_later_outcomes_are_orphans(driver: Driver) -> None:
    row = Row(driver, "29", p(), p("other", customer="d"), p("after", 4), o(5), order("x", 5, 1.0), wm(6))
    topics = Topics(driver.use_case.name)
    until_ms = START_MS + (row.begin_s + 3) * 1_000
    request = asked(f"{row.name}/c", until_ms, entity="customer", of=driver.use_case.name)
    driver.send([(topics.retraining, encode(request), [])])
    others = [Step("reports", 50, {"offer_id": event, "value": 1.0}) for event in ("other", "after")]
    row.go_on(o(50, 3, 1), *others, wm(120), wm(2 * DAY_S))
    deleted = [key for key, value in driver.read(topics.labels) if value is None and row.name.encode() in (key or b"")]
    assert [f"{row.name}/a".encode()] == deleted
    assert [(1, PROVISIONAL, 1)] == row.of()
    assert [(1, PROVISIONAL, 1), (1, FINAL, 2)] == row.of("other") == row.of("after")
    assert ("a", "orphan") in row.aside
    if isinstance(driver, KafkaFeedback):
        deadline = time.monotonic() + PATIENCE_S
        while left := told_of(driver, f"{row.name}/a"):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        driver.restart()
        row.go_on(wm(2 * DAY_S + 1))
        assert not told_of(driver, f"{row.name}/a")


def _ends(row: Row, label: str) -> dict[str, float | None]:
    """Where the label of each prediction ended."""
    return {prediction: said[-1][0] for (prediction, name), said in row.said.items() if name == label}
