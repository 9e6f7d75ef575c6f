"""One suite for every online store: the in-memory twin here, Redis under tests/integration."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace.backends.memory import MemoryOnlineStore
from tailrace.backends.ports import OnlineStore, ReadRequest
from tailrace.errors import StoreUnavailable

COLUMNS = ("count_1h", "mean_1h")


class OnlineStoreContract:
    """What every `OnlineStore` promises. Subclasses provide the fixture `store`."""

    def _write(
        self, store: OnlineStore, keys: list[str], values: list[list[float]], at_ms: list[int], view: str = "card"
    ) -> None:
        states = [f"{key}@{at}".encode() for key, at in zip(keys, at_ms, strict=True)]
        store.write(view, "card_id", COLUMNS, keys, np.array(values), np.array(at_ms), states)

    def test_what_was_written_is_read_back_in_the_order_of_the_keys(self, store: OnlineStore) -> None:
        self._write(store, ["a", "b"], [[1.0, 2.0], [3.0, np.nan]], [1_000, 2_001])
        (rows,) = store.read([ReadRequest("card", "card_id", COLUMNS, ["b", "a", "b"])])
        np.testing.assert_array_equal([[3.0, np.nan], [1.0, 2.0], [3.0, np.nan]], rows.values)
        assert [2_001, 1_000, 2_001] == rows.timestamps_ms.tolist()
        assert [b"b@2001", b"a@1000", b"b@2001"] == list(rows.state)

    def test_an_unknown_key_has_no_timestamp_no_values_and_no_state(self, store: OnlineStore) -> None:
        (rows,) = store.read([ReadRequest("card", "card_id", COLUMNS, ["nobody"])])
        assert np.isnan(rows.values).all()
        assert [-1] == rows.timestamps_ms.tolist()
        assert [None] == list(rows.state)

    def test_an_older_row_never_replaces_a_newer_one(self, store: OnlineStore) -> None:
        self._write(store, ["a"], [[2.0, 2.0]], [1_700_000_000_001])
        self._write(store, ["a"], [[1.0, 1.0]], [1_699_999_999_999])
        (rows,) = store.read([ReadRequest("card", "card_id", COLUMNS, ["a"])])
        assert [[2.0, 2.0]] == rows.values.tolist()
        assert [b"a@1700000000001"] == list(rows.state)

    def test_a_row_of_the_same_time_replaces_the_former(self, store: OnlineStore) -> None:
        self._write(store, ["a"], [[1.0, 1.0]], [5_000])
        self._write(store, ["a"], [[2.0, 2.0]], [5_000])
        (rows,) = store.read([ReadRequest("card", "card_id", COLUMNS, ["a"])])
        assert [[2.0, 2.0]] == rows.values.tolist()

    def test_the_last_occurrence_of_a_key_in_a_batch_wins(self, store: OnlineStore) -> None:
        self._write(store, ["a", "a"], [[2.0, 2.0], [1.0, 1.0]], [7_000, 6_000])
        (rows,) = store.read([ReadRequest("card", "card_id", COLUMNS, ["a"])])
        assert [[1.0, 1.0]] == rows.values.tolist()

    def test_views_of_one_entity_are_kept_apart(self, store: OnlineStore) -> None:
        self._write(store, ["a"], [[1.0, 1.0]], [1], view="one")
        self._write(store, ["a"], [[2.0, 2.0]], [2], view="two")
        rows = store.read([ReadRequest(view, "card_id", COLUMNS, ["a"]) for view in ("two", "one", "three")])
        assert [2, 1, -1] == [int(found.timestamps_ms[0]) for found in rows]
        assert [2.0, 1.0] == [float(found.values[0, 0]) for found in rows[:2]]
        assert np.isnan(rows[2].values).all()

    def test_time_zero_and_text_beyond_ascii_survive(self, store: OnlineStore) -> None:
        self._write(store, ["käse 🧀", ""], [[0.0, -0.5], [1e300, 5e-324]], [0, 999])
        (rows,) = store.read([ReadRequest("card", "card_id", COLUMNS, ["käse 🧀", ""])])
        assert [[0.0, -0.5], [1e300, 5e-324]] == rows.values.tolist()
        assert [0, 999] == rows.timestamps_ms.tolist()

    def test_answers_may_be_awaited_in_any_order_after_further_asks(self, store: OnlineStore) -> None:
        self._write(store, ["a", "b"], [[1.0, 1.0], [2.0, 2.0]], [1, 2])
        answers = [store.ask([ReadRequest("card", "card_id", COLUMNS, [key])]) for key in ("a", "b", "a")]
        assert [1, 2, 1] == [int(answer()[0].timestamps_ms[0]) for answer in reversed(answers)]

    def test_nothing_to_write_and_nothing_to_read_is_no_error(self, store: OnlineStore) -> None:
        store.write("card", "card_id", COLUMNS, [], np.empty((0, 2)), np.empty(0, np.int64), [])
        (rows,) = store.read([ReadRequest("card", "card_id", COLUMNS, [])])
        assert (0, 2) == rows.values.shape
        assert [] == store.read([])


class TestMemoryOnlineStore(OnlineStoreContract):
    @pytest.fixture
    def store(self) -> MemoryOnlineStore:
        return MemoryOnlineStore()

    def test_a_store_that_is_away_says_so(self, store: MemoryOnlineStore) -> None:
        store.available = False
        with pytest.raises(StoreUnavailable):
            store.read([])
