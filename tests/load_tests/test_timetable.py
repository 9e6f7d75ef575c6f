from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.timetable import Law, arrivals, share_of

LAWS: tuple[Law, ...] = ("constant", "poisson")


@given(
    rate=st.floats(0.5, 5_000),
    duration_s=st.floats(0.01, 5),
    law=st.sampled_from(LAWS),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_timetable_ascends_inside_its_length(rate: float, duration_s: float, law: Law, seed: int) -> None:
    times = arrivals(rate, duration_s, law=law, seed=seed)
    assert bool((np.diff(times) >= 0).all())
    assert bool(((times >= 0) & (times < duration_s)).all())


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert [0.0, 0.25, 0.5, 0.75] == arrivals(4, 1, law="constant", seed=1).tolist()


def test_poisson_arrivals_have_the_mean_and_the_spread_of_the_law() -> None:
    gaps = np.diff(arrivals(1_000, 100, law="poisson", seed=3))
    # The mean of 100,000 gaps strays by 1/316 of itself; five times that is never seen. Exponential: spread = mean.
    assert np.mean(gaps) == pytest.approx(1e-3, rel=0.016)
    assert np.std(gaps) == pytest.approx(1e-3, rel=0.03)


def test_poisson_counts_of_separate_seconds_are_independent_of_each_other() -> None:
    times = arrivals(100, 2_000, law="poisson", seed=4)
    counts = np.bincount(times.astype(np.int64), minlength=2_000)
    assert np.var(counts) == pytest.approx(np.mean(counts), rel=0.2)
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 0.12


def test_the_seed_alone_decides_a_timetable() -> None:
    first = arrivals(500, 3, law="poisson", seed=9)
    assert first.tolist() == arrivals(500, 3, law="poisson", seed=9).tolist()
    assert first.tolist() != arrivals(500, 3, law="poisson", seed=10).tolist()


@given(count=st.integers(0, 500), parts=st.integers(1, 7))
def test_shares_of_all_processes_make_the_whole_timetable_once(count: int, parts: int) -> None:
    served = [place for part in range(parts) for place in share_of(count, part, parts)]
    assert list(range(count)) == sorted(served)
