"""The seeded stream and the malformed records are what they say."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tailrace.backends.codec import EventDecoder
from tailrace.errors import BadRecord
from tailrace.testing.malformed import FAR_FUTURE_MS, KINDS, malformed_records
from tailrace.testing.streams import DAY_MS, HOUR_MS, CardFraudStream
from tailrace.usecase.sources import Event, Topic


class Payment(Event):
    payment_id: str
    amount_eur: float
    channel: Literal["web", "pos"]
    at_ms: int


GOOD = {"payment_id": "p1", "amount_eur": 3.5, "channel": "web", "at_ms": 1_736_121_600_000}


def test_the_same_seed_gives_the_same_stream() -> None:
    one, two = (CardFraudStream(seed=3, days=4, drift_day=2).tables() for _ in range(2))
    assert one[0].equals(two[0])
    assert one[1].equals(two[1])
    assert not one[0].equals(CardFraudStream(seed=4, days=4, drift_day=2).tables()[0])


def test_chargebacks_follow_their_payment_by_hours_to_two_days() -> None:
    events, outcomes = CardFraudStream(seed=3, days=6, drift_day=3).tables()
    paid = dict(zip(events["transaction_id"].to_pylist(), events["occurred_at_ms"].to_pylist(), strict=True))
    delays = [
        at - paid[name]
        for name, at in zip(outcomes["transaction_id"].to_pylist(), outcomes["reported_at_ms"].to_pylist(), strict=True)
    ]
    assert 2 * HOUR_MS <= min(delays)
    assert max(delays) < 2 * DAY_MS
    assert 0.01 < len(delays) / len(paid) < 0.10


def test_both_tables_are_sorted_in_time() -> None:
    events, outcomes = CardFraudStream(seed=3, days=5, drift_day=3).tables()
    assert bool(np.all(np.diff(events["occurred_at_ms"].to_numpy()) >= 0))
    assert bool(np.all(np.diff(outcomes["reported_at_ms"].to_numpy()) >= 0))


def test_fraud_by_large_amounts_ends_at_the_drift() -> None:
    stream = CardFraudStream(seed=3, days=12, drift_day=6)
    events, outcomes = stream.tables()
    fraud = np.isin(events["transaction_id"].to_numpy(), outcomes["transaction_id"].to_numpy())
    amount, before = events["amount_eur"].to_numpy(), events["occurred_at_ms"].to_numpy() < stream.drift_ms
    assert float(np.median(amount[fraud & before])) > 100
    assert float(np.median(amount[fraud & ~before])) < 40


def test_every_malformed_record_is_refused_by_the_decoder_or_lies_far_ahead() -> None:
    decoder = EventDecoder(Topic("payments", Payment, key="payment_id", event_time="at_ms"))
    records = list(malformed_records(5, 10 * len(KINDS), GOOD, "at_ms"))
    decoded = decoder.decode([record.value for record in records])
    for record, found in zip(records, decoded, strict=True):
        # A time far ahead is for the check of event times to refuse, which knows the clock.
        ahead = isinstance(found, Payment) and found.at_ms >= FAR_FUTURE_MS
        assert isinstance(found, BadRecord) or (ahead and record.kind in ("future", "beyond_double")), record.kind


def test_there_are_twenty_kinds_and_each_comes_in_turn() -> None:
    assert len(KINDS) == 20
    assert [*KINDS, KINDS[0]] == [record.kind for record in malformed_records(1, 21, GOOD, "at_ms")]
