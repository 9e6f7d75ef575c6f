"""Reading Feast's bytes by the column gives what reading them one by one does."""

from __future__ import annotations

import math
import struct

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.backends.feast_bytes import decode_timestamps, decode_values


def double(number: float) -> tuple[bytes, float]:
    return b"\x29" + struct.pack("<d", number), number


def single(number: float) -> tuple[bytes, float]:
    return b"\x35" + struct.pack("<f", number), number


def small(number: int) -> tuple[bytes, float]:
    return bytes([0x20, number]), float(number)


MISSING = [(None, math.nan), (b"", math.nan), (b"\x12\x07not 1.0", math.nan)]
doubles = st.builds(double, st.floats(allow_nan=False))
cells = st.one_of(
    doubles,
    st.builds(single, st.floats(width=32, allow_nan=False)),
    st.builds(small, st.integers(0, 127)),
    st.sampled_from(MISSING),
)
stamps = st.none() | st.builds(
    lambda seconds, nanos: Timestamp(seconds=seconds, nanos=nanos), st.integers(0, 2**36), st.integers(0, 999_999_999)
)


@settings(deadline=None)
@given(st.lists(cells, max_size=8) | st.lists(doubles | st.sampled_from(MISSING[:2])))
def test_numbers_are_those_of_the_cells(cells: list[tuple[bytes | None, float]]) -> None:
    np.testing.assert_array_equal([number for _, number in cells], decode_values([text for text, _ in cells]))


@settings(deadline=None)
@given(st.lists(stamps, max_size=8))
def test_times_are_those_of_the_protobuf_timestamps(cells: list[Timestamp | None]) -> None:
    texts = [None if cell is None else cell.SerializeToString() for cell in cells]
    expected = [-1 if cell is None else cell.seconds * 1_000 + cell.nanos // 1_000_000 for cell in cells]
    assert expected == decode_timestamps(texts).tolist()
