"""What heartbeats say."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.contracts.records import Heartbeat
from tailrace.ops.vitals import FORGET_MS, SILENT_MS, Vitals

BEAT = Heartbeat(
    use_case="uc",
    service="inference",
    instance="0",
    started_at_ms=0,
    at_ms=0,
    not_ready="",
    records=0,
    dead_letters=0,
    restarts=0,
)
BOUNDS_MS = [10.0, 20.0, 50.0, 100.0]


def beat(at_ms: int, records: int = 0, **fields: object) -> Heartbeat:
    return msgspec.structs.replace(BEAT, at_ms=at_ms, records=records, **fields)


def test_rate_is_taken_over_all_workers_of_a_service() -> None:
    vitals = Vitals()
    for second in range(30):
        vitals.apply(beat(second * 1_000, second * 100))
        vitals.apply(beat(second * 1_000, second * 50, instance="1"))
    assert 150.0 == vitals.records_per_s("inference", 29_000)
    assert vitals.records_per_s("features", 29_000) is None


def test_restart_counts_from_zero_and_is_no_negative_rate() -> None:
    vitals = Vitals()
    for second in range(10):
        vitals.apply(beat(second * 1_000, second * 100))
    vitals.apply(beat(10_000, 0, started_at_ms=9_500))
    vitals.apply(beat(11_000, 70, started_at_ms=9_500))
    assert 70.0 == vitals.records_per_s("inference", 11_000)


def test_silent_worker_is_named_and_in_the_end_forgotten() -> None:
    vitals = Vitals()
    vitals.apply(beat(0))
    assert [] == vitals.unwell(["inference"], SILENT_MS)
    assert [("inference", "has been silent for 6 s")] == vitals.unwell(["inference"], SILENT_MS + 1_000)
    assert "silent" == vitals.workers(SILENT_MS + 1_000)[0]["state"]
    assert [] == vitals.workers(FORGET_MS + 1)
    assert [("inference", "has not been heard of")] == vitals.unwell(["inference"], FORGET_MS + 1)


def test_service_is_unwell_only_when_no_worker_is_ready() -> None:
    vitals = Vitals()
    vitals.apply(beat(0, not_ready="no broker"))
    assert [("inference", "is not ready: no broker")] == vitals.unwell(["inference"], 0)
    vitals.apply(beat(0, instance="1"))
    assert [] == vitals.unwell(["inference"], 0)


@given(st.lists(st.floats(0, 99.9), min_size=1, max_size=300), st.integers(1, 3))
def test_quantiles_lie_in_the_bucket_of_the_exact_ones(latencies_ms: list[float], workers: int) -> None:
    vitals = Vitals()
    for number in range(workers):
        counts, _ = np.histogram(latencies_ms[number::workers], [0.0, *BOUNDS_MS, 1e9])
        for at_ms, part in ((0, np.zeros_like(counts)), (1_000, counts)):
            vitals.apply(beat(at_ms, instance=str(number), latency_bounds_ms=BOUNDS_MS, latency_counts=part.tolist()))
    found = vitals.latency(1_000)
    for share, name in ((50, "p50_ms"), (95, "p95_ms"), (99, "p99_ms")):
        exact = float(np.percentile(latencies_ms, share, method="inverted_cdf"))
        bucket = int(np.searchsorted(BOUNDS_MS, exact, side="right"))
        assert ([0.0, *BOUNDS_MS][bucket]) - 0.1 <= (found[name] or 0.0) <= BOUNDS_MS[bucket] + 0.1


def test_no_prediction_has_no_latency() -> None:
    vitals = Vitals()
    vitals.apply(beat(0))
    assert {None} == set(vitals.latency(0).values())


@pytest.mark.parametrize(
    ("reasons", "share"), [({"stale": 5}, 0.1), ({"stale": 5, "no_row": 10}, 0.2), ({"no_model": 50}, 0.0)]
)
def test_degraded_share_is_that_of_the_commonest_reason_and_knows_no_missing_model(
    reasons: dict[str, int], share: float
) -> None:
    vitals = Vitals()
    vitals.apply(beat(0))
    vitals.apply(beat(1_000, predictions=50, degraded=reasons))
    assert share == vitals.degraded(1_000)[0]
