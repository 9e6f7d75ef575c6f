"""The compiled detectors against their naive twins, however the losses are cut into batches."""

from __future__ import annotations

import numpy as np
import pytest
from naive_detectors import NaiveAdwin, NaivePageHinkley

from tailrace.core.loss_detectors import LOSS_CAP, start_loss_detector
from tailrace.core.monitors import ADWIN, PageHinkley


def losses(seed: int) -> np.ndarray:
    """Losses whose mean rises, falls and rises again; in quarters, so that sums are exact."""
    rng = np.random.default_rng(seed)
    means = np.repeat([0.1, *rng.permutation([0.1, 0.4, 0.8])], 700)
    return (rng.random(len(means)) < means) * rng.choice([1.0, 2.0, 4.0], len(means))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch", [1, 7, 500])
def test_adwin_in_batches_and_through_snapshots_detects_what_the_naive_one_detects(seed: int, batch: int) -> None:
    values, naive = losses(seed), NaiveAdwin(ADWIN().delta)
    detector = start_loss_detector(ADWIN())
    found = []
    for start in range(0, len(values), batch):
        part = values[start : start + batch]
        at_ms = detector.update(part, np.arange(start, start + len(part)))
        expected = naive.update((part / LOSS_CAP).tolist())
        assert (start + expected[0] if expected else None) == at_ms
        assert naive.total / naive.count == detector.estimate
        found += [at_ms] * bool(expected)
        detector = start_loss_detector(ADWIN(), detector.snapshot())
    assert found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch", [1, 7, 500])
def test_page_hinkley_in_batches_and_through_snapshots_detects_what_the_naive_one_detects(
    seed: int, batch: int
) -> None:
    spec = PageHinkley(threshold=20.0)
    values, naive = losses(seed), NaivePageHinkley(spec.min_instances, spec.delta, spec.threshold)
    detector = start_loss_detector(spec)
    found = []
    for start in range(0, len(values), batch):
        part = values[start : start + batch]
        at_ms = detector.update(part, np.arange(start, start + len(part)))
        expected = naive.update(part.tolist())
        assert (start + expected[0] if expected else None) == at_ms
        assert naive.mean == detector.estimate
        found += [at_ms] * bool(expected)
        detector = start_loss_detector(spec, detector.snapshot())
    assert found
