"""Rows of an entity that was erased leave the lake and stay out of it; no model is trained on them again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from tailrace.backends.settings import load_settings
from tailrace.contracts.retraining import EraseRequested
from tailrace.contracts.topics import Topics
from tailrace.core.sampling import DataSet
from tailrace.trainer.dataset import Window, load
from tailrace.trainer.lake import DAY_MS, LabelRow, Lake, ServedRow

START_MS = 20_000 * DAY_MS
EVENTS = 60
WINDOW = Window(until_ms=START_MS + 9 * DAY_MS, span_ms=30 * DAY_MS, attribution_ms=DAY_MS, lateness_ms=0)
REQUEST = EraseRequested(
    use_case="shop",
    entity="card",
    value="c1",
    before_ms=START_MS + 3 * DAY_MS,
    by="ana",
    reason="asked",
    requested_at_ms=0,
)


def rows() -> tuple[list[ServedRow], list[LabelRow]]:
    """Predictions of three cards over five days, by turns, of two plans, and their labels."""
    served, labels = [], []
    for at in range(EVENTS):
        time_ms, entities = START_MS + at * 5 * DAY_MS // EVENTS, msgspec.Raw(b'{"card":"c%d","shop":"s"}' % (at % 3))
        plan = "plan" if at % 2 else "other"
        served.append(ServedRow(f"p{at}", time_ms, "1", 0.2, [float(at)], plan, entities))
        end_ms = time_ms + DAY_MS
        labels.append(LabelRow(f"p{at}", time_ms, 1, 1.0, "final", end_ms, "champion", end_ms, entities=entities))
    return served, labels


def is_erased(at: int) -> bool:
    return at % 3 == 1 and at * 5 / EVENTS <= 3


def lake_in(folder: Path) -> Lake:
    return Lake(load_settings().model_copy(update={"state_dir": folder}), Topics("shop"))


def write(lake: Lake, name: str = "0") -> None:
    for kind, found in zip((ServedRow, LabelRow), rows(), strict=True):
        lake.write(kind, list(found), name, {0: 0})


def ids_of(lake: Lake, kind: str) -> list[str]:
    files = sorted((lake.directory / kind).rglob("*.parquet"))
    return [name for path in files for name in pq.read_table(path, partitioning=None)["prediction_id"].to_pylist()]


def data_of(lake: Lake) -> DataSet:
    return load(lake.directory, fingerprint="plan", window=WINDOW)


def test_data_set_is_what_it_would_be_without_the_entity(tmp_path: Path) -> None:
    lake, spared = lake_in(tmp_path / "erased"), lake_in(tmp_path / "spared")
    write(lake)
    assert EVENTS / 2 == len(data_of(lake).labels)
    assert sum(map(is_erased, range(EVENTS))) == lake.erase(REQUEST)
    write(spared)
    before, after = data_of(spared), data_of(lake)
    kept = np.array([not is_erased(int(at)) for at in before.rows[:, 0]])
    assert before.rows[kept].tolist() == after.rows.tolist()
    assert before.labels[kept].tolist() == after.labels.tolist()
    left = sorted(f"p{at}" for at in range(EVENTS) if not is_erased(at))
    assert left == sorted(ids_of(lake, "predictions")) == sorted(ids_of(lake, "labels"))
    assert 0 == lake.erase(REQUEST)


def test_what_is_copied_after_the_request_is_left_out_too(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    lake.erase(REQUEST)
    write(lake)
    left = sorted(f"p{at}" for at in range(EVENTS) if not is_erased(at))
    assert left == sorted(ids_of(lake, "predictions")) == sorted(ids_of(lake, "labels"))


@pytest.mark.parametrize("survived", range(6))
def test_erasure_that_was_cut_short_is_done_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    lake, whole = lake_in(tmp_path / "cut"), lake_in(tmp_path / "whole")
    for one in (lake, whole):
        write(one)
    whole.erase(REQUEST)
    rename, done = Path.rename, []

    def killed(path: Path, target: Path) -> Path:
        if len(done) == survived:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            lake.erase(REQUEST)
    lake_in(tmp_path / "cut").erase(REQUEST)
    for kind in ("predictions", "labels"):
        assert ids_of(whole, kind) == ids_of(lake, kind)


def test_files_of_releases_that_kept_no_entity_stay_and_are_read(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    write(lake)
    for path in (lake.directory / "predictions").rglob("*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["entities"]), path)
    assert 0 == lake.erase(REQUEST)
    assert EVENTS / 2 == len(data_of(lake).rows)
