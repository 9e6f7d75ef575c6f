import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift as river_drift

from tailrace.core.loss_detectors import start_loss_detector
from tailrace.core.monitors import ADWIN, PageHinkley

SPECS = [ADWIN(), PageHinkley(threshold=5.0)]
LOSSES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), max_size=300)


def losses(seed: int, *parts: tuple[int, float]) -> np.ndarray:
    """0-1 losses: so many with such a rate, one part after the other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(count) < rate for count, rate in parts]).astype(np.float64)


def times(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
@settings(max_examples=40, deadline=None)
@given(values=LOSSES, cut=st.integers(0, 300))
def test_restored_detector_goes_on_as_the_one_that_ran(
    spec: ADWIN | PageHinkley, values: list[float], cut: int
) -> None:
    stream = np.array(values)
    whole = start_loss_detector(spec)
    first = start_loss_detector(spec)
    first.update(stream[:cut], times(len(stream))[:cut])
    # What is stored is JSON, so that is what must suffice.
    second = start_loss_detector(spec, msgspec.json.decode(msgspec.json.encode(first.snapshot())))
    whole.update(stream[:cut], times(len(stream))[:cut])
    rest = stream[cut:], times(len(stream))[cut:]
    assert whole.update(*rest) == second.update(*rest)
    assert whole.snapshot() == second.snapshot()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
@pytest.mark.parametrize("seed", range(5))
def test_steady_loss_raises_no_alarm_and_a_jump_is_found_soon(spec: ADWIN | PageHinkley, seed: int) -> None:
    detector = start_loss_detector(PageHinkley() if isinstance(spec, PageHinkley) else spec)
    steady = losses(seed, (10_000, 0.05))
    assert detector.update(steady, times(10_000)) is None
    found = detector.update(losses(seed + 100, (1_000, 0.4)), times(1_000) + 10_000)
    assert found is not None
    assert found - 10_000 < 300


@pytest.mark.parametrize("seed", range(5))
def test_falling_loss_is_no_drift(seed: int) -> None:
    detector = start_loss_detector(ADWIN())
    assert detector.update(losses(seed, (5_000, 0.4), (5_000, 0.05)), times(10_000)) is None
    assert detector.estimate * 4.0 < 0.1


@pytest.mark.parametrize("seed", range(8))
def test_page_hinkley_equals_river_without_forgetting(seed: int) -> None:
    stream = losses(seed, (2_000, 0.1), (2_000, 0.5))
    spec = PageHinkley(threshold=20.0)
    river = river_drift.PageHinkley(
        min_instances=spec.min_instances, delta=spec.delta, threshold=spec.threshold, alpha=1.0, mode="up"
    )
    theirs = None
    for at, value in enumerate(stream):
        river.update(float(value))
        if river.drift_detected and theirs is None:
            theirs = at
    ours = start_loss_detector(spec).update(stream, times(len(stream)))
    assert theirs is not None
    assert ours == theirs


@pytest.mark.parametrize("seed", range(8))
def test_adwin_finds_a_rise_where_river_does(seed: int) -> None:
    stream = losses(seed, (3_000, 0.1), (3_000, 0.4))
    river = river_drift.ADWIN(delta=0.002)
    theirs = None
    for at, value in enumerate(stream):
        # Ours scales losses by the cap, under which a 0-1 loss is at most 1/4.
        river.update(float(value) / 4.0)
        if river.drift_detected and theirs is None and at >= 3_000:
            theirs = at
    ours = start_loss_detector(ADWIN()).update(stream, times(len(stream)))
    assert theirs is not None
    assert ours is not None
    assert abs(ours - theirs) <= 96


def reference(values: np.ndarray) -> dict[str, object]:
    present = values[~np.isnan(values)]
    edges = np.unique(np.quantile(present, np.linspace(0, 1, 21)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "nulls": int(np.isnan(values).sum())}
