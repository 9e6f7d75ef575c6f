"""Rows of FEATURES encoded by the batch, against one by one."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.backends.ports import Headers
from tailrace.contracts.records import FeatureRow, Source
from tailrace.core.plan import Plan, RequestColumn
from tailrace.features.encoding import RowEncoder
from tailrace.features.runs import Run


class Payment(msgspec.Struct, frozen=True):
    payment_id: int
    card: str
    channel: str
    amount: float


rows = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.text(),
        st.text(),
        st.floats(),
        st.integers(0, 2**62),
        st.integers(0, 2**62),
    ),
    min_size=1,
    max_size=8,
)


def plan(entities: tuple[str, ...], slices: tuple[str, ...]) -> Plan:
    column = RequestColumn(name="amount", kind="field", field="amount")
    return Plan(
        use_case="u", version=1, key="card", event_time="at_ms", event_id="payment_id", entities=entities, slices=slices,
        request=(column, column), views=(), field_types={}, threshold=0.5, default_score=0.5, latency_budget_ms=20,
    )  # fmt: skip


@given(rows, st.sampled_from([(), ("card",), ("card", "channel")]), st.sampled_from([(), ("channel",)]))
def test_a_batch_encodes_to_the_bytes_of_its_rows(
    drawn: list[tuple[int, str, str, float, int, int]], entities: tuple[str, ...], slices: tuple[str, ...]
) -> None:
    made = plan(entities, slices)
    events = [Payment(at, card, channel, amount) for at, card, channel, amount, _, _ in drawn]
    records: list[tuple[int, int, bytes | None, bytes | None, Headers]] = [
        (offset, at_ms, None, b"", []) for *_, offset, at_ms in drawn
    ]
    run = Run.of("payments", 3, records)
    values = np.array([[amount, 1.5] for *_, amount, _, _ in drawn])
    times = np.array([at_ms for *_, at_ms in drawn], np.int64)
    encoded = RowEncoder(made).encode(run, events, [event.card for event in events], times, values)
    twin = [
        msgspec.json.encode(
            FeatureRow(
                event_id=str(event.payment_id),
                event_time_ms=at_ms,
                key=event.card,
                entities={name: str(getattr(event, name)) for name in entities},
                slices={name: str(getattr(event, name)) for name in slices},
                values=[None if amount != amount else amount, 1.5],
                fingerprint=made.fingerprint,
                source=Source("payments", 3, offset),
                produced_at_ms=at_ms,
            )
        )
        for event, (*_, amount, offset, at_ms) in zip(events, drawn, strict=True)
    ]
    assert twin == encoded
