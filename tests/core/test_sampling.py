import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.sampling import DataSet, final_labels, split_by_time

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
    codes, labels = final_labels(
        np.array(columns[0], dtype=np.int64),
        np.array(columns[1], dtype=np.int64),
        np.array([np.nan if label is None else label for label in columns[2]]),
        np.array(columns[3], dtype=bool),
        np.array(columns[4], dtype=np.int64),
        until_ms,
    )
    assert naive(rows, until_ms) == dict(zip(codes.tolist(), labels.tolist(), strict=True))
    assert sorted(codes.tolist()) == codes.tolist()


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
