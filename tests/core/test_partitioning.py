from __future__ import annotations

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.partitioning import partitions_of


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 12))
def test_keys_go_to_the_partition_that_other_clients_choose(keys: list[bytes], partitions: int) -> None:
    assert [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys] == partitions_of(keys, partitions).tolist()
