import msgspec
import numpy as np

from tailrace.core.freshness import judge
from tailrace.core.plan import WindowColumn, WindowView

VIEW = WindowView(
    name="v",
    source="labels",
    entity="m",
    columns=(WindowColumn(name="c", kind="count", span_ms=1),),
    fresh_within_ms=100,
)
NOW = np.array([1_000, 1_000, 1_000, 1_000])
ROWS = [b"fresh", b"old", None, b"ahead"]
WRITTEN = np.array([950, 800, -1, 1_200])


def test_old_and_absent_rows_are_replaced_under_a_rule() -> None:
    judged = judge(VIEW, ROWS, WRITTEN, NOW)
    assert judged.states == [b"fresh", None, None, b"ahead"]
    assert judged.stale.tolist() == [False, True, True, False]


def test_without_a_rule_any_age_is_good() -> None:
    judged = judge(msgspec.structs.replace(VIEW, fresh_within_ms=None), ROWS, WRITTEN, NOW)
    assert judged.states == ROWS
    assert not judged.stale.any()


def test_row_that_runs_ahead_has_age_zero_and_an_absent_one_none() -> None:
    assert judge(VIEW, ROWS, WRITTEN, NOW).ages_ms.tolist() == [50, 200, -1, 0]
