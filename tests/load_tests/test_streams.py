from __future__ import annotations

import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests import events, feature_rows, workload
from load_tests.streams import PARTITIONS, WARM_UP, rate_of
from tailrace.contracts.records import FeatureRow


@given(st.lists(st.integers(0, 5_000), min_size=20, max_size=300), st.randoms(use_true_random=False))
def test_the_rate_counts_what_came_behind_the_warm_up_in_any_order(stamps: list[int], random: object) -> None:
    ordered = sorted(stamps)
    begin = ordered[int(WARM_UP * len(ordered))]
    if ordered[-1] == begin:
        return
    naive = sum(stamp > begin for stamp in stamps) / ((ordered[-1] - begin) / 1000)
    random.shuffle(stamps)  # type: ignore[attr-defined]
    assert naive == pytest.approx(rate_of(np.array(stamps, np.int64)))


def test_a_steady_stream_has_its_own_rate_and_a_slow_start_does_not_count() -> None:
    steady = np.arange(0, 10_000, 2, dtype=np.int64)
    assert rate_of(steady) == pytest.approx(500)
    late = np.concatenate([[-60_000], steady]).astype(np.int64)
    assert rate_of(late) == pytest.approx(500, rel=0.01)


def test_outputs_that_come_all_at_once_have_no_rate() -> None:
    with pytest.raises(ValueError, match="too few events"):
        rate_of(np.full(50, 7, np.int64))


def test_events_are_the_same_for_all_candidates_and_differ_by_seed() -> None:
    at_ms = np.arange(200, dtype=np.int64)
    first = events.payments(200, seed=1, at_ms=at_ms)
    assert first == events.payments(200, seed=1, at_ms=at_ms)
    assert first != events.payments(200, seed=2, at_ms=at_ms)


def test_an_event_says_its_place_its_card_and_its_partition() -> None:
    for place, (key, value, partition) in enumerate(events.payments(50, seed=1, at_ms=np.arange(50) + 1_000)):
        event = msgspec.json.decode(value, type=events.Payment)
        assert (str(place), key.decode(), place + 1_000) == (event.payment_id, event.card, event.at_ms)
        assert int(event.card[1:]) % PARTITIONS == partition
        assert events.NUMBERS == sum(name.startswith("x") for name in msgspec.json.decode(value))


def test_source_offsets_of_feature_rows_ascend_in_each_partition() -> None:
    rows = feature_rows.rows(300, seed=1, fingerprint="f", topic="t")
    decoded = [(msgspec.json.decode(value, type=FeatureRow), partition) for _, value, partition in rows]
    for number in range(PARTITIONS):
        offsets = [row.source.offset for row, partition in decoded if partition == number]
        assert list(range(len(offsets))) == offsets
    assert {feature_rows.WIDTH} == {len(row.values) for row, _ in decoded}


def test_the_network_scores_rows_with_missing_values_between_0_and_1() -> None:
    session = onnxruntime.InferenceSession(workload.network(), providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(1).normal(0, 1, (64, feature_rows.WIDTH)).astype(np.float32)
    rows[::3, ::4] = np.nan
    scores = session.run(None, {"rows": rows})[0]
    assert (64, 1) == scores.shape
    assert bool(((scores > 0) & (scores < 1)).all())
    assert np.ptp(scores) > 0.05
