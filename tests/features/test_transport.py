"""The private names of Faust and aiokafka that `features/transport.py` relies on."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace

import aiokafka
import pytest
from aiokafka.consumer import consumer as client
from aiokafka.consumer import fetcher
from faust.transport import consumer
from faust.transport.drivers import aiokafka as driver

from tailrace.features.runs import Run
from tailrace.features.transport import AHEAD_FROM, FetchConsumer, FetchThread, LateFetcher, LeanRecords


def test_overridden_methods_still_exist_with_their_parameters() -> None:
    def parameters(method: object) -> list[str]:
        return list(inspect.signature(method).parameters)  # type: ignore[arg-type]  # methods, all of them

    assert ["self", "fetcher"] == parameters(consumer.Consumer._drain_messages)
    assert parameters(driver.AIOKafkaConsumerThread._create_worker_consumer) == parameters(
        FetchThread._create_worker_consumer
    )
    assert ["self", "tp", "record"] == parameters(fetcher.PartitionRecords._consumer_record)
    for name in ("commit", "wait_empty", "on_partitions_assigned", "on_partitions_revoked"):
        assert hasattr(consumer.Consumer, name), name
        assert name in vars(FetchConsumer), name


def test_the_fetcher_unpacks_through_the_name_that_is_replaced() -> None:
    assert fetcher.PartitionRecords is LeanRecords
    assert "PartitionRecords(" in inspect.getsource(fetcher.Fetcher)
    assert "_consumer_record(" in inspect.getsource(LeanRecords._unpack_records)


def test_settings_that_have_no_parameter_are_still_read_from_the_client() -> None:
    source = inspect.getsource(aiokafka.AIOKafkaConsumer)
    assert "self._isolation_level" in source
    assert "self._fetch_max_wait_ms" in source


def test_a_record_becomes_a_row_of_its_run() -> None:
    record = SimpleNamespace(offset=5, timestamp=7, key=b"k", value=b"v", headers=[("h", b"x")])
    row = LeanRecords._consumer_record(None, None, record)  # type: ignore[arg-type]  # it looks at the record alone
    run = Run.of("payments", 1, [row, row])
    assert ((5, 5), (7, 7), (b"k", b"k"), (b"v", b"v"), ([("h", b"x")], [("h", b"x")])) == run[2:]


def test_the_client_fetches_through_the_name_that_is_replaced() -> None:
    assert client.Fetcher is LateFetcher
    assert "= Fetcher(" in inspect.getsource(aiokafka.AIOKafkaConsumer)
    routine = inspect.getsource(fetcher.Fetcher._fetch_requests_routine)
    # Whoever begins to wait wakes it by this future, which is new when it looks who waits.
    assert routine.index("self._wait_consume_future = ") < routine.index("self._get_actions_per_node(")
    assert "_create_fetch_waiter()" in inspect.getsource(fetcher.Fetcher.fetched_records)


@pytest.mark.parametrize(
    ("records", "waiting", "asked"), [(AHEAD_FROM, False, True), (AHEAD_FROM - 1, False, False), (1, True, True)]
)
def test_the_broker_is_asked_ahead_only_while_much_comes_at_once(
    monkeypatch: pytest.MonkeyPatch, records: int, waiting: bool, asked: bool
) -> None:
    async def fetched(*_: object) -> dict[str, list[int]]:
        return {"partition": [0] * records}

    monkeypatch.setattr(fetcher.Fetcher, "fetched_records", fetched)
    monkeypatch.setattr(fetcher.Fetcher, "_get_actions_per_node", lambda *_: (["request"], {}, 0.2, False, []))
    reader = LateFetcher.__new__(LateFetcher)
    reader._fetch_waiters = {"somebody"} if waiting else set()
    assert records == len(asyncio.run(reader.fetched_records(None))["partition"])
    assert (["request"] if asked else [], {}, 0.2, False, []) == reader._get_actions_per_node(None)
