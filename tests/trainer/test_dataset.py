"""The data set of a request from a lake on disk: mature rows alone, or with those still coming, or a refusal."""

from __future__ import annotations

from pathlib import Path

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tailrace.contracts.retraining import Quarantined
from tailrace.errors import ImmatureLabels
from tailrace.trainer.dataset import Window, load
from tailrace.trainer.lake import LabelRow, ServedRow, _date, _labels, _predictions, labels_of, predictions_of

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START_DAY = 20_000
DAYS, PER_DAY, WAIT_DAYS = 6, 400, 2
UNTIL_MS = (START_DAY + DAYS) * DAY_MS
WINDOW = Window(until_ms=UNTIL_MS, span_ms=30 * DAY_MS, attribution_ms=WAIT_DAYS * DAY_MS, lateness_ms=0)


def written(root: Path, kind: str, table: pa.Table) -> None:
    days = np.asarray(table["event_time_ms"].to_numpy()) // DAY_MS
    for day in np.unique(days).tolist():
        folder = (predictions_of(root, "plan") if kind == "served" else labels_of(root)) / f"date={_date(day)}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.array(days == day)), folder / "0.parquet")


def lake(root: Path, *, lose: float = 0.0, keep_open: bool = False) -> dict[str, tuple[int, int | None]]:
    """Writes predictions, a fifth of them positive after up to two days; gives times and when a positive came."""
    rng = np.random.default_rng(1)
    served, labels, truth = [], [], {}
    for at in range(DAYS * PER_DAY):
        time_ms = START_DAY * DAY_MS + at * DAY_MS // PER_DAY
        came = min(int(rng.exponential(0.5 * DAY_MS)), WAIT_DAYS * DAY_MS - 1) if rng.random() < 0.2 else None
        name = f"p{at}"
        truth[name] = (time_ms, came)
        served.append(ServedRow(name, time_ms, "1", 0.2, [float(at)], "plan"))
        if came is not None and time_ms + came <= UNTIL_MS:
            status = "final" if keep_open else "provisional"
            labels.append(LabelRow(name, time_ms, 1, 1.0, status, time_ms + came, "champion", time_ms + came))
        if not keep_open and time_ms + WAIT_DAYS * DAY_MS <= UNTIL_MS and rng.random() >= lose:
            value = 0.0 if came is None else 1.0
            outcome_ms = None if came is None else time_ms + came
            end_ms = time_ms + WAIT_DAYS * DAY_MS
            labels.append(LabelRow(name, time_ms, 2, value, "final", end_ms, "champion", outcome_ms))
    written(root, "served", _predictions(served))
    written(root, "labels", _labels(labels))
    return truth


def test_labels_of_a_source_in_quarantine_are_marked_within_its_span(tmp_path: Path) -> None:
    served = [ServedRow(f"p{at}", START_DAY * DAY_MS + at * HOUR_MS, "1", 0.2, [float(at)], "plan") for at in range(24)]
    labels = [
        LabelRow(
            row.prediction_id,
            row.event_time_ms,
            1,
            1.0,
            "final",
            row.event_time_ms + 1,
            "champion",
            row.event_time_ms + 1,
            source="liar" if at % 2 else "honest",
        )
        for at, row in enumerate(served)
    ]
    written(tmp_path, "served", _predictions(served))
    written(tmp_path, "labels", _labels(labels))
    since_ms, until_ms = served[5].event_time_ms, served[11].event_time_ms
    held = [Quarantined(source="liar", since_ms=since_ms, until_ms=until_ms)]
    data = load(tmp_path, fingerprint="plan", window=WINDOW, quarantined=held)
    assert data.distrusted is not None
    assert [5, 7, 9] == np.flatnonzero(data.distrusted).tolist()
    assert 21 == len(data.trusted.labels)
    assert load(tmp_path, fingerprint="plan", window=WINDOW).distrusted is None


def test_rows_are_those_whose_window_has_closed_with_the_labels_they_then_had(tmp_path: Path) -> None:
    truth = lake(tmp_path)
    data = load(tmp_path, fingerprint="plan", window=WINDOW)
    expected = [came is not None for time_ms, came in truth.values() if time_ms + WAIT_DAYS * DAY_MS <= UNTIL_MS]
    assert expected == data.labels.tolist()
    assert data.targets is None
    assert np.arange(len(expected), dtype=np.float32).tolist() == data.rows[:, 0].tolist()


@pytest.mark.parametrize("weighted", [False, True])
def test_events_that_may_have_lost_their_outcome_are_no_rows(tmp_path: Path, *, weighted: bool) -> None:
    lake(tmp_path)
    begin_ms = START_DAY * DAY_MS
    spans = [(begin_ms + DAY_MS, begin_ms + 2 * DAY_MS), (UNTIL_MS - DAY_MS, UNTIL_MS - HOUR_MS)]
    whole = load(tmp_path, fingerprint="plan", window=WINDOW._replace(weighted=weighted))
    data = load(tmp_path, fingerprint="plan", window=WINDOW._replace(weighted=weighted, lost=spans))
    kept = [not any(start <= at < end for start, end in spans) for at in whole.times_ms.tolist()]
    assert whole.times_ms[kept].tolist() == data.times_ms.tolist()
    assert whole.labels[kept].tolist() == data.labels.tolist()
    assert sum(kept) < len(kept)


def test_weighted_rows_reach_to_the_newest_and_their_targets_sum_to_the_positives_there_will_be(tmp_path: Path) -> None:
    truth = lake(tmp_path)
    data = load(tmp_path, fingerprint="plan", window=WINDOW._replace(weighted=True))
    assert data.targets is not None
    assert data.times_ms[-1] > UNTIL_MS - 4 * HOUR_MS
    newest = data.times_ms > UNTIL_MS - WAIT_DAYS * DAY_MS
    assert set(data.targets[~newest].tolist()) == {0.0, 1.0}
    assert (data.targets[newest & data.labels] >= 1.0).all()
    used = set(data.times_ms[newest].tolist())
    final = sum(came is not None for time_ms, came in truth.values() if time_ms in used)
    come = int(data.labels[newest].sum())
    assert abs(data.targets[newest].sum() - final) < 0.5 * (final - come)


def test_the_draw_of_a_row_follows_from_its_prediction_id_and_no_other_row(tmp_path: Path) -> None:
    lake(tmp_path)
    whole = load(tmp_path, fingerprint="plan", window=WINDOW._replace(drawn=True))
    assert whole.draws is not None
    assert whole.draws.tolist() == [mmh3.hash(f"p{at}", 15, False) / 2**32 for at in range(len(whole.labels))]
    sooner = load(tmp_path, fingerprint="plan", window=WINDOW._replace(drawn=True, span_ms=DAY_MS))
    assert sooner.draws is not None
    assert whole.draws[-len(sooner.draws) :].tolist() == sooner.draws.tolist()
    assert np.histogram(whole.draws, 4, (0.0, 1.0))[0] == pytest.approx(len(whole.draws) / 4, rel=0.15)
    plain = load(tmp_path, fingerprint="plan", window=WINDOW)
    assert plain.draws is None
    assert whole._replace(draws=None).rows.tobytes() == plain.rows.tobytes()


def test_positives_of_days_whose_other_labels_are_open_are_refused(tmp_path: Path) -> None:
    lake(tmp_path, keep_open=True)
    with pytest.raises(ImmatureLabels, match="no label"):
        load(tmp_path, fingerprint="plan", window=WINDOW)
    young = WINDOW._replace(attribution_ms=30 * DAY_MS)
    with pytest.raises(ImmatureLabels, match="still wait"):
        load(tmp_path, fingerprint="plan", window=young)


def test_labels_that_are_missing_at_random_are_refused_too(tmp_path: Path) -> None:
    lake(tmp_path, lose=0.2)
    with pytest.raises(ImmatureLabels, match="predictions whose attribution window has closed have no label"):
        load(tmp_path, fingerprint="plan", window=WINDOW)


def test_labels_of_an_older_release_that_names_no_censored_ones_are_read(tmp_path: Path) -> None:
    lake(tmp_path)
    for file in labels_of(tmp_path).rglob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["censored", "outcome_time_ms"]), file)
    assert load(tmp_path, fingerprint="plan", window=WINDOW).labels.any()
