from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from load_tests import workers
from load_tests.capacity import Costs, Load, costs, plan
from load_tests.capacity_page import EXAMPLES, PAGE, rewritten
from load_tests.scenarios.steady_memory import growth
from load_tests.workers import Rates, _Sample
from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError

COSTS = Costs(
    cpu_us={"features": 10.0, "inference": 20.0},
    broker_us=15.0,
    redis_us=2.0,
    worker_rate={"features": 100_000.0, "inference": 50_000.0},
    topic_bytes={"payments": 100.0, "predictions": 200.0},
    key_bytes=1_000.0,
    open_bytes=500.0,
    redis_key_bytes=400.0,
    feature_us=0.1,
    model_mb=1.0,
    workers_share=0.9,
)


def amounts(load: Load) -> dict[str, float]:
    return {need.what: need.amount for need in plan(COSTS, load)}


def test_the_page_says_what_was_measured() -> None:
    text = PAGE.read_text()
    assert rewritten(text, costs()) == text, "run: python -m load_tests capacity --write"


def test_a_page_that_lacks_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="not one"):
        rewritten("# Capacity\n", COSTS)


def test_a_scenario_that_was_not_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="python -m load_tests run event_cost"):
        costs(tmp_path)


def test_a_plan_counts_cores_workers_memory_and_bandwidth_by_hand() -> None:
    needs = amounts(Load(events_per_second=300_000, keys=2e6, open_days=0.5, kept_days=2, replicas=3, busy=0.5))
    # 300,000 × 20 µs are 6 s of processor a second, half of which is planned with.
    assert 12 == needs["inference cores"]
    assert 6 == needs["features workers"]
    assert 12 == needs["inference workers"] == needs["partitions"]
    # 15 µs for each of three replicas.
    assert 27 == needs["broker cores"]
    # 300 bytes × 3 replicas written; 100 + 2 × 200 bytes to consumers and 2 × 300 to replicas sent.
    assert needs["brokers write"] == pytest.approx(0.27)
    assert needs["brokers send"] == pytest.approx(0.33)
    assert needs["disk"] == pytest.approx(0.27e9 * 2 * 86_400 / 1e12)
    assert 2 == needs["Redis shards"]
    assert needs["Redis memory"] == pytest.approx(0.8)
    assert needs["features memory"] == pytest.approx(2.0)
    assert needs["feedback memory"] == pytest.approx(300_000 * 43_200 * 500 / 1e9)


def test_twice_the_load_never_needs_less_than_once_and_never_more_than_twice() -> None:
    for load in EXAMPLES.values():
        once = amounts(load)
        twice = amounts(msgspec.structs.replace(load, events_per_second=2 * load.events_per_second, keys=2 * load.keys))
        for what, amount in once.items():
            assert amount <= twice[what] <= 2 * amount + 1e-9


def test_memory_that_climbs_shows_its_slope_and_memory_that_stands_still_none() -> None:
    at_s = np.arange(0, 1_800, 5, dtype=np.float64)
    noise = np.random.default_rng(1).normal(0, 0.2, len(at_s))
    slope, low, high = growth(at_s, 300 + 60 * at_s / 3_600 + noise)
    assert low < 60 < high
    assert slope == pytest.approx(60, abs=5)
    _, low, high = growth(at_s, 300 + noise)
    assert low < 0 < high


def test_memory_that_climbs_while_it_warms_up_only_is_flat() -> None:
    at_s = np.arange(0, 1_800, 5, dtype=np.float64)
    assert (0.0, 0.0, 0.0) == growth(at_s, np.minimum(at_s, 590))


def test_a_run_too_short_for_an_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="--minutes"):
        growth(np.arange(0, 120, 5, dtype=np.float64), np.zeros(24))


def test_rates_are_taken_between_the_first_tenth_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    # A worker that idles for a second, then does 100 records a second on half a processor, then stalls at the end.
    done = [max(at - 1, 0) for at in range(12)]
    samples = [_Sample(at, 100 * n, n / 2, 2.0 * at, n / 4, n / 8) for at, n in enumerate(done)]
    samples.append(_Sample(100.0, 1_000, 40.0, 200.0, 50.0, 50.0))
    monkeypatch.setattr(workers, "_samples", lambda *_: iter(samples))
    found = workers.rates(Settings.model_construct(), "sink", 1_000, lambda: None, {})
    assert Rates(100.0, 200.0, 5_000.0, 0.5, 2.0, 0.0, broker_us=2_500.0, redis_us=1_250.0) == found


def test_rates_of_a_run_that_was_over_before_it_was_measured_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [_Sample(float(at), n, 1.0 + at, 1.0, 0.0, 0.0) for at, n in enumerate((850, 880, 1_000))]
    monkeypatch.setattr(workers, "_samples", lambda *_: iter(samples))
    with pytest.raises(ValueError, match="too few events"):
        workers.rates(Settings.model_construct(), "sink", 1_000, lambda: None, {})
