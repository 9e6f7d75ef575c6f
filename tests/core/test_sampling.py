import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.sampling import DataSet, biased, maturity, newest_labels, split_by_time

VERSIONS = st.lists(
    st.tuples(
        st.integers(0, 5),  # prediction
        st.integers(1, 4),  # version
        st.sampled_from([0.0, 1.0, None]),  # label
        st.booleans(),  # final
        st.integers(0, 10),  # known at
    ),
    unique_by=lambda row: row[:2],
    max_size=20,
)


def naive(rows: list[tuple[int, int, float | None, bool, int]], until_ms: int) -> dict[int, bool]:
    newest: dict[int, tuple[int, float | None, bool]] = {}
    for code, version, label, final, known_at_ms in rows:
        if known_at_ms <= until_ms and version > newest.get(code, (0, None, False))[0]:
            newest[code] = (version, label, final)
    return {code: label > 0 for code, (_, label, final) in newest.items() if final and label is not None}


@given(VERSIONS, st.integers(0, 10))
def test_newest_known_version_decides_and_counts_only_when_final(
    rows: list[tuple[int, int, float | None, bool, int]], until_ms: int
) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * 5
    codes = np.array(columns[0], dtype=np.int64)
    found = newest_labels(codes, np.array(columns[1], dtype=np.int64), np.array(columns[4], dtype=np.int64), until_ms)
    held = [rows[at] for at in found.tolist()]
    assert naive(rows, until_ms) == {
        code: label > 0 for code, _, label, final, _ in held if final and label is not None
    }
    assert sorted(codes[found].tolist()) == codes[found].tolist()


@given(st.integers(0, 200_000))
def test_split_keeps_every_row_once_and_in_order(count: int) -> None:
    order = np.arange(count, dtype=np.int64)
    split = split_by_time(DataSet(np.empty((count, 0), np.float32), order % 2 == 0, order))
    assert np.array_equal(np.concatenate([part.times_ms for part in split]), order)
    held = len(split.gates.labels)
    assert held == len(split.calibration.labels)
    assert int(count * 0.05) <= held <= int(count * 0.1)


def test_gates_see_a_whole_day_where_it_fits() -> None:
    a_day = 2_450
    times = np.arange(14 * a_day) * (86_400_000 // a_day)
    split = split_by_time(DataSet(np.empty((len(times), 0), np.float32), times % 2 == 0, times))
    assert split.gates.times_ms[-1] - split.gates.times_ms[0] >= 86_400_000 - 2 * (86_400_000 // a_day)


HOURS = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), max_size=40)


@given(HOURS, st.integers(0, 8), st.integers(0, 4))
def test_prediction_is_trained_on_once_its_window_has_closed_or_all_its_hour_is_known(
    rows: list[tuple[int, bool, bool]], until: int, wait: int
) -> None:
    times = np.array([hour * 3_600_000 for hour, _, _ in rows], dtype=np.int64)
    final = np.array([final for _, final, _ in rows], dtype=bool)
    censored = np.array([censored and not final for _, final, censored in rows], dtype=bool)
    found = maturity(times, final, censored, until_ms=until * 3_600_000, wait_ms=wait * 3_600_000)
    for at, (hour, is_final, _) in enumerate(rows):
        closed = hour + wait <= until
        whole = all(final[other] or censored[other] for other in range(len(rows)) if rows[other][0] == hour)
        assert found.mature[at] == (is_final and (closed or whole))
        assert found.early[at] == (is_final and not (closed or whole))
        assert found.missing[at] == (closed and not is_final and not censored[at])


def test_set_of_those_that_were_reported_first_is_refused_and_says_so() -> None:
    times = np.arange(1_000, dtype=np.int64) * 1_000
    positive = np.arange(1_000) % 10 == 0
    found = maturity(times, positive, ~np.ones(1_000, bool), until_ms=2_000_000, wait_ms=10_000_000)
    assert "all 100 final labels (100% positive)" in biased(found, positive)


def test_set_whose_closed_predictions_lack_labels_is_refused_and_says_so() -> None:
    times = np.arange(1_000, dtype=np.int64) * 1_000
    final = np.arange(1_000) % 4 != 0
    found = maturity(times, final, ~np.ones(1_000, bool), until_ms=20_000_000, wait_ms=10_000_000)
    assert "250 of 1000 predictions" in biased(found, final)
    assert biased(maturity(times, np.ones(1_000, bool), ~final, until_ms=20_000_000, wait_ms=1), final) == ""
