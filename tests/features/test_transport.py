"""The private names of Faust and aiokafka that `features/transport.py` relies on."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import aiokafka
from aiokafka.consumer import fetcher
from faust.transport import consumer
from faust.transport.drivers import aiokafka as driver

from tailrace.features.runs import Run
from tailrace.features.transport import FetchConsumer, FetchThread, LeanRecords


def test_overridden_methods_still_exist_with_their_parameters() -> None:
    def parameters(method: object) -> list[str]:
        return list(inspect.signature(method).parameters)  # type: ignore[arg-type]  # methods, all of them

    assert ["self", "fetcher"] == parameters(consumer.Consumer._drain_messages)
    assert parameters(driver.AIOKafkaConsumerThread._create_worker_consumer) == parameters(
        FetchThread._create_worker_consumer
    )
    assert ["self", "tp", "record"] == parameters(fetcher.PartitionRecords._consumer_record)
    for name in ("ack", "commit", "wait_empty", "on_partitions_assigned", "on_partitions_revoked"):
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
