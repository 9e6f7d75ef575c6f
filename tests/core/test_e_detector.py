"""The e-detector against its definition, and the laws it promises."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.core.e_detector import RATIOS, Baseline, EDetectorState, wilson_upper
from tailrace.core.loss_detectors import LOSS_CAP, baselines, losses, start_loss_detector
from tailrace.core.monitors import EDetector

SPEC = EDetector("accuracy")


def errors(seed: int, *parts: tuple[int, float]) -> np.ndarray:
    """0-1 losses: so many with such a rate, one part after the other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(count) < rate for count, rate in parts]).astype(np.float64)


def times(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.int64)


def known(rate: float, count: int = 20_000) -> Baseline:
    return Baseline(count, rate * count, rate * count)


def begun(rate: float, count: int = 20_000, run_length: int = 100_000) -> EDetectorState:
    return EDetectorState.begun(EDetector("accuracy", run_length), known(rate, count), 1.0)


def naive_alarm(values: list[float], bound: float, run_length: float) -> tuple[int, int] | None:
    """Position of the alarm and of the change: the wealth of each bettor by its definition, from every beginning."""
    for now in range(len(values)):
        wealth = {}
        for ratio in RATIOS.tolist():
            bet = min((ratio - 1.0) / (1.0 - bound), 0.9 / bound)
            product = 1.0
            for start in range(now, -1, -1):
                product *= 1.0 + bet * (values[start] - bound)
                wealth[ratio, start] = product
        if sum(wealth.values()) / len(RATIOS) >= run_length:
            best = max(wealth, key=lambda key: (wealth[key], -key[1]))
            return now, best[1]
    return None


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 0.0, 0.25, 1.0]), min_size=1, max_size=70),
    share=st.sampled_from([0.05, 0.1, 0.3]),
)
def test_alarm_and_change_point_are_those_of_the_definition(values: list[float], share: float) -> None:
    expected = naive_alarm(values, wilson_upper(share, 1_000), 50.0)
    detector, found = begun(share, 1_000, run_length=50), None
    for at, value in enumerate(values):
        since = detector.update(np.array([value]), times(1, at))
        if since is not None and found is None:
            found = at, since
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert found[0] == expected[0]
        assert found[1] == expected[1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1_000), cut=st.integers(0, 6_000), rate=st.sampled_from([0.1, 0.2, 0.5]))
def test_restored_detector_goes_on_as_the_one_that_ran_whatever_the_batches(seed: int, cut: int, rate: float) -> None:
    stream = errors(seed, (2_000, 0.1), (2_000, rate), (2_000, 0.1))
    whole, first = begun(0.1, 500), begun(0.1, 500)
    found = whole.update(stream, times(6_000))
    before = first.update(stream[:cut], times(cut))
    stored = msgspec.json.decode(msgspec.json.encode(first.snapshot()))
    second = start_loss_detector(SPEC, stored)
    after = second.update(stream[cut:], times(6_000 - cut, cut))
    assert found == (before if before is not None else after)
    assert whole.estimate == pytest.approx(second.estimate)
    one, two = whole.snapshot(), second.snapshot()
    # Only sums of the pooled losses are taken in another order, of whole numbers.
    assert one == two


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_steady_errors_alarm_less_than_once_in_a_run_length(rate: float) -> None:
    alarms = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = rng.random(20_000) < rate
        detector = begun(float(labels.mean()))
        stream = errors(seed + 100, (100_000, rate))
        for start in range(0, 100_000, 10_000):
            alarms += detector.update(stream[start : start + 10_000], times(10_000, start)) is not None
    assert alarms <= 10


@pytest.mark.parametrize(("before", "after", "within"), [(0.1, 0.15, 700), (0.02, 0.05, 700), (0.3, 0.5, 200)])
def test_rise_is_found_soon_with_its_beginning_and_its_size(before: float, after: float, within: int) -> None:
    delays, begins, levels = [], [], []
    for seed in range(25):
        detector = begun(before)
        stream = errors(seed, (5_000, before), (4_000, after))
        for at in range(0, len(stream), 10):
            since = detector.update(stream[at : at + 10], times(10, at))
            if since is not None:
                delays.append(at - 5_000)
                begins.append(since - 5_000)
                levels.append(detector.estimate)
                break
    assert len(delays) == 25
    assert np.median(delays) <= within
    assert abs(np.median(begins)) <= within / 3
    assert np.mean(levels) == pytest.approx(after, rel=0.2)


def test_level_of_an_alarm_comes_to_be_that_of_what_follows() -> None:
    detector = begun(0.1)
    detector.update(errors(3, (2_000, 0.1), (400, 0.3)), times(2_400))
    assert detector.standing
    detector.update(errors(4, (20_000, 0.15)), times(20_000))
    assert detector.standing
    assert detector.estimate == pytest.approx(0.15, abs=0.006)


def test_state_with_other_bets_begins_them_anew_and_keeps_the_baseline() -> None:
    detector = begun(0.1)
    detector.update(errors(5, (5_000, 0.1)), times(5_000))
    stored = detector.snapshot()
    stored["started"], stored["since"], stored["total"] = [[9.9, 1.0, 0.0, 0.0]] * 5, [0] * 5, 4e5
    old = start_loss_detector(SPEC, stored)
    assert old.limit == detector.limit
    assert old.update(np.ones(1), times(1, 5_000)) is None
    assert old.update(errors(6, (3_000, 0.2)), times(3_000, 5_001)) is not None


def test_alarm_is_raised_once_and_over_when_the_loss_is_back() -> None:
    detector = begun(0.1)
    assert detector.update(errors(1, (2_000, 0.1), (20_000, 0.3)), times(22_000)) is not None
    assert detector.standing
    assert detector.limit == wilson_upper(0.1, 20_000)
    assert detector.update(errors(2, (20_000, 0.3)), times(20_000)) is None
    assert detector.standing
    assert detector.update(errors(3, (3_000, 0.1)), times(3_000)) is None
    assert not detector.standing
    assert detector.update(errors(4, (2_000, 0.3)), times(2_000)) is not None


def test_baseline_is_learned_from_first_labels_tightens_and_never_follows_a_slow_rise() -> None:
    detector = EDetectorState.begun(SPEC, Baseline(), 1.0)
    detector.update(errors(1, (499, 0.1)), times(499))
    assert detector.limit == 1.0
    assert not detector.sure
    detector.update(errors(2, (200, 0.1)), times(200))
    first = detector.limit
    for seed in range(3):
        detector.update(errors(20 + seed, (10_000, 0.1)), times(10_000))
    assert not detector.standing
    assert detector.sure
    held = detector.limit
    assert 0.095 < held < min(first, 0.11)
    creep = np.linspace(0.1, 0.13, 60_000)
    slow = (np.random.default_rng(5).random(60_000) < creep).astype(np.float64)
    assert detector.update(slow, times(60_000)) is not None
    assert detector.limit <= held


def test_thin_baseline_is_not_sure() -> None:
    assert not begun(0.02, 500).sure
    assert begun(0.02, 2_500).sure


def scored(rng: np.random.Generator, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated scores but for so much noise on their log-odds, and what happened."""
    logits = rng.normal(-2.0, 1.5, count)
    positive = rng.random(count) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-(logits + noise * rng.normal(size=count)))), positive


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_real_losses_are_quiet_without_a_change_and_alarm_when_scores_go_wrong(metric: str) -> None:
    false = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        known_losses = baselines(*scored(rng, 20_000, 0.0), 0.5)
        assert known_losses["log_loss"].total <= LOSS_CAP * 20_000
        detector = start_loss_detector(EDetector(metric), None, known_losses[metric])
        false += detector.update(losses(metric, *scored(rng, 30_000, 0.0), 0.5), times(30_000)) is not None
        detector = start_loss_detector(EDetector(metric), None, known_losses[metric])
        detector.update(losses(metric, *scored(rng, 2_000, 0.0), 0.5), times(2_000))
        since = detector.update(losses(metric, *scored(rng, 6_000, 2.0), 0.5), times(6_000, 2_000))
        assert since is not None
        assert since > 1_000
        assert detector.estimate > detector.limit
    assert false <= 2  # 180,000 labels


def test_family_of_detectors_shares_the_false_alarms_of_one() -> None:
    alone, many = begun(0.1), begun(0.1)
    many.share(50)
    stream = errors(0, (1_000, 0.1), (4_000, 0.2))
    found = [0, 0]
    for place, detector in enumerate((alone, many)):
        for at in range(len(stream)):
            if detector.update(stream[at : at + 1], times(1, at)) is not None:
                found[place] = at
                break
    assert 1_000 < found[0] < found[1]
