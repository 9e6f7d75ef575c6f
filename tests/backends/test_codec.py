import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.backends.codec import EventDecoder, decode, encode
from tailrace.contracts.records import Source
from tailrace.errors import BadRecord
from tailrace.usecase.sources import Event, Topic


class Payment(Event):
    payment_id: str
    card: str
    amount: float
    at_ms: int


DECODER = EventDecoder(Topic("payments", Payment, key="card", event_time="at_ms"))
GOOD = b'{"payment_id": "p", "card": "c", "amount": 1.5, "at_ms": 7}'


def reason(value: bytes | None) -> str:
    [record] = DECODER.decode([value])
    assert isinstance(record, BadRecord)
    return record.reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"null", "wrong_type"),
        (b"[1]", "wrong_type"),
        (GOOD[:-3], "not_json"),
        (GOOD + b"x", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"payment_id": "\xff", "card": "c", "amount": 1, "at_ms": 7}', "not_json"),
        (b'{"payment_id": "p", "card": "c", "amount": "1,5", "at_ms": 7}', "wrong_type"),
        (b'{"payment_id": "p", "card": "c", "amount": NaN, "at_ms": 7}', "not_json"),
        (b'{"payment_id": "p", "card": "c", "at_ms": 7}', "wrong_type"),
        (b'{"payment_id": "p", "card": "", "amount": 1, "at_ms": 7}', "empty_key"),
        (b"[" * 100_000, "wrong_type"),
        (b'{"payment_id": "p", "card": "c", "amount": 1e999, "at_ms": 7}', "wrong_type"),
        (b'{"payment_id": "p", "card": "c", "amount": 1, "at_ms": 1' + b"0" * 400 + b"}", "out_of_range"),
        (b'{"payment_id": "p", "card": "c", "amount": 1, "at_ms": 9223372036854775808}', "out_of_range"),
        (b"7", "wrong_type"),
    ],
)
def test_bad_value_is_named_and_does_not_spoil_its_neighbours(value: bytes | None, expected: str) -> None:
    before, bad, after = DECODER.decode([GOOD, value, GOOD])
    assert isinstance(before, Payment)
    assert isinstance(after, Payment)
    assert isinstance(bad, BadRecord)
    assert bad.reason == expected


def test_value_that_smuggles_in_a_second_record_is_refused() -> None:
    assert reason(GOOD + b"," + GOOD) == "not_json"


def test_two_halves_that_only_parse_together_are_both_refused() -> None:
    first, second = DECODER.decode([b'{"payment_id": "p"', b'"card": "c", "amount": 1, "at_ms": 7}'])
    assert isinstance(first, BadRecord)
    assert isinstance(second, BadRecord)


def test_smuggled_record_is_not_hidden_by_two_halves_that_make_up_for_it() -> None:
    values = [GOOD + b"," + GOOD, GOOD[:20], GOOD[20:]]
    assert all(isinstance(record, BadRecord) for record in DECODER.decode(values))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_batch_equals_one_by_one(amounts: list[float]) -> None:
    values = [encode(Payment(payment_id="p", card="c", amount=amount, at_ms=1)) for amount in amounts]
    together = DECODER.decode(values)
    assert together == [DECODER.decode([value])[0] for value in values]
    assert [record.amount for record in together if isinstance(record, Payment)] == amounts


def test_record_survives_the_round_trip() -> None:
    source = Source("t", 1, 2)
    assert decode(Source, encode(source)) == source
    assert math.isclose(decode(float, b"1.5"), 1.5)
