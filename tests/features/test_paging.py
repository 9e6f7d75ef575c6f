"""Window state that lies in files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tailrace.core.plan import WindowColumn, WindowView
from tailrace.core.windows import WindowState
from tailrace.errors import Fatal
from tailrace.features import paging
from tailrace.features.paging import PagedRoom, resident_bytes

VIEW = WindowView(
    name="card",
    source="events",
    entity="card",
    columns=(WindowColumn(name="s", kind="sum", field="amount", span_ms=1_000_000),),
)


def filled(state: WindowState) -> list[np.ndarray]:
    rows = []
    for turn in range(12):
        keys = [f"k{at}" for at in range(turn * 100, 3_000)]
        times = np.full(len(keys), turn)
        rows.append(state.update(keys, times, np.full((len(keys), 1), 1 / 8), np.arange(len(keys)) + turn * len(keys)))
    return rows


@pytest.mark.parametrize("resident", [0, 400_000])
def test_rows_and_snapshots_in_files_equal_those_in_memory(tmp_path: Path, resident: int) -> None:
    plain, paged = WindowState(VIEW), WindowState(VIEW, room=PagedRoom(tmp_path / "pages", resident))
    for expected, found in zip(filled(plain), filled(paged), strict=True):
        np.testing.assert_array_equal(expected, found)
    assert plain.snapshot(plain.keys) == paged.snapshot(plain.keys)
    assert (tmp_path / "pages").is_dir()


def test_state_that_fits_makes_no_files_and_files_leave_no_names(tmp_path: Path) -> None:
    filled(WindowState(VIEW, room=PagedRoom(tmp_path / "none", 1 << 30)))
    assert not (tmp_path / "none").exists()
    filled(WindowState(VIEW, room=PagedRoom(tmp_path / "some", 0)))
    assert [] == list((tmp_path / "some").iterdir())


def test_a_full_disk_stops_the_service_and_does_not_kill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paging.os, "posix_fallocate", full)
    with pytest.raises(Fatal, match="No space left"):
        filled(WindowState(VIEW, room=PagedRoom(tmp_path, 0)))


def test_a_containers_limit_counts_where_it_is_lower_than_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = resident_bytes()
    (tmp_path / "limit").write_text("1000000\n")
    (tmp_path / "unlimited").write_text("max\n")
    monkeypatch.setattr(paging, "CONTAINER_LIMITS", (str(tmp_path / "limit"), str(tmp_path / "unlimited")))
    assert resident_bytes() == 250_000 < whole


def test_while_pages_come_from_disk_all_that_a_batch_reads_is_asked_for_and_nothing_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = WindowState(VIEW, room=PagedRoom(tmp_path, 0))
    filled(state)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(paging.os, "posix_fadvise", lambda _, begin, size, __: asked.append((begin, begin + size)))
    blocks = iter([1, 2, 2])
    monkeypatch.setattr(paging.resource, "getrusage", lambda _: SimpleNamespace(ru_inblock=next(blocks)))
    keys = ["k2999", "k100", "k7", "k100"]
    for cold in (True, True, False):
        asked.clear()
        rings = [state._table.begin[state._slots[key]] for key in keys]
        state.update(keys, np.full(4, 99), np.zeros((4, 1)), np.arange(4) + 1_000_000)
        for begin in rings:
            at = int(begin) * state._rings.words.strides[0]
            assert cold == any(low <= at < high for low, high in asked)
    assert not asked
