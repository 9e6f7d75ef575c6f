from __future__ import annotations

from typing import Any

import pytest

from tailrace.backends.codec import encode
from tailrace.backends.settings import Settings
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.contracts.topics import Topics
from tailrace.runtime.control import ControlFollower


class End:
    """What the client hands over at the end of a partition."""

    def error(self) -> Any:
        return object()

    def value(self) -> None:
        return None


class Table:
    """A record of CONTROL."""

    def __init__(self, epoch: int) -> None:
        champion = Variant(name="c", role="champion", model_version="1", bundle_uri="", digest="", share=1.0)
        table = RoutingTable(use_case="uc", epoch=epoch, decided_at_ms=0, reason="", salt="", variants=[champion])
        self._value = encode(table)

    def error(self) -> None:
        return None

    def value(self) -> bytes:
        return self._value


class Scripted:
    """A consumer that has fetched some records already."""

    def __init__(self, *records: Any) -> None:
        self._records = list(records)

    def assign(self, partitions: Any) -> None:
        pass

    def poll(self, timeout: float) -> Any:
        return self._records.pop(0) if self._records else None

    def close(self) -> None:
        pass


def test_one_look_finds_the_newest_table_behind_the_ends_that_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    follower = ControlFollower(Settings(), Topics("uc"))
    follower.close()
    monkeypatch.setattr(follower, "_consumer", Scripted(Table(1), End(), Table(2), End(), Table(3), End()))
    newest = follower.poll()
    assert newest is not None
    assert 3 == newest.epoch
    assert follower.poll() is None
