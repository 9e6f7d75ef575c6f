"""Reading Feast's bytes by the column gives what reading them one by one does."""

from __future__ import annotations

import math

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.backends.feast_bytes import decode_timestamps, decode_values

doubles = st.floats(allow_nan=False)
values = st.one_of(
    st.none(),
    st.builds(Value),
    st.builds(lambda x: Value(double_val=x), doubles),
    st.builds(lambda x: Value(float_val=x), st.floats(width=32, allow_nan=False)),
    st.builds(lambda x: Value(int64_val=x), st.integers(-(2**53), 2**53)),
    st.builds(lambda x: Value(bool_val=x), st.booleans()),
    st.builds(lambda x: Value(string_val=x), st.text(max_size=12)),
)
stamps = st.none() | st.builds(
    lambda seconds, nanos: Timestamp(seconds=seconds, nanos=nanos), st.integers(0, 2**36), st.integers(0, 999_999_999)
)


def number_of(value: Value | None) -> float:
    kind = None if value is None else value.WhichOneof("val")
    return math.nan if kind in (None, "string_val") else float(getattr(value, str(kind)))


@settings(deadline=None)
@given(st.lists(values, max_size=8) | st.lists(st.none() | st.builds(lambda x: Value(double_val=x), doubles)))
def test_numbers_are_those_of_the_protobuf_values(cells: list[Value | None]) -> None:
    texts = [None if cell is None else cell.SerializeToString() for cell in cells]
    np.testing.assert_array_equal([number_of(cell) for cell in cells], decode_values(texts))


@settings(deadline=None)
@given(st.lists(stamps, max_size=8))
def test_times_are_those_of_the_protobuf_timestamps(cells: list[Timestamp | None]) -> None:
    texts = [None if cell is None else cell.SerializeToString() for cell in cells]
    expected = [-1 if cell is None else cell.seconds * 1_000 + cell.nanos // 1_000_000 for cell in cells]
    assert expected == decode_timestamps(texts).tolist()
