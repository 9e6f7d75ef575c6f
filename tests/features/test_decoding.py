"""Events of a run, decoded and checked by the column."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tailrace.backends.codec import EventDecoder
from tailrace.errors import BadRecord
from tailrace.features.decoding import RunDecoder
from tailrace.usecase.sources import Event, Topic


class Payment(Event, frozen=True):
    card: str
    amount: float
    at_ms: int
    limit: int | None = None


TOPIC = Topic("payments", Payment, key="card", event_time="at_ms")
GOOD = b'{"card":"a","amount":1.5,"at_ms":7}'
BAD = [
    None,
    b"",
    b'{"card":"a"',
    b'{"card":"","amount":1.5,"at_ms":7}',
    b'{"card":"a","amount":1.5,"at_ms":9223372036854775808}',
    b'{"card":"a","amount":"x","at_ms":7}',
    b'{"card":"a","amount":1,"at_ms":7},{"card":"b","amount":1,"at_ms":7}',
]


@given(st.lists(st.sampled_from([GOOD, *BAD]), max_size=6))
def test_every_record_is_judged_as_it_would_be_alone(values: Sequence[bytes | None]) -> None:
    def shown(records: Sequence[object]) -> list[object]:
        return [record.reason if isinstance(record, BadRecord) else record for record in records]

    events, clean = RunDecoder(TOPIC).decode(values)
    alone = [EventDecoder(TOPIC).decode([value])[0] for value in values]
    assert shown(alone) == shown(events)
    assert clean == all(value == GOOD for value in values)
