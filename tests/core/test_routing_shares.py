"""Laws of the router that hold for any table."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.contracts.records import RoutingTable, Variant
from tailrace.core.routing import Router

KEYS = [f"k{number}" for number in range(1_000)]
SHARES = st.lists(st.integers(0, 16), min_size=0, max_size=5).filter(lambda parts: sum(parts) <= 32)


def variant(name: str, share: float, role: Literal["champion", "canary", "shadow"] = "canary") -> Variant:
    return Variant(name=name, role=role, model_version="1", bundle_uri="", digest="", share=share)


def router(shares: list[float], salt: str = "s") -> Router:
    variants = [variant("champion", 1.0 - sum(shares), "champion")]
    variants += [variant(f"c{at}", share) for at, share in enumerate(shares)]
    return Router(RoutingTable(use_case="u", epoch=3, decided_at_ms=0, reason="", salt=salt, variants=variants))


def names(made: Router) -> list[str]:
    return [made.variants[at].name for at in made.route(KEYS)]


@settings(max_examples=40)
@given(SHARES, st.text(max_size=40))
def test_any_number_of_challengers_get_their_shares(parts: list[int], salt: str) -> None:
    found = names(router([part / 32 for part in parts], salt))
    for at, part in enumerate(parts):
        share = part / 32
        tolerance = 5 * math.sqrt(share * (1 - share) / len(KEYS))
        assert abs(found.count(f"c{at}") / len(KEYS) - share) <= tolerance


@settings(max_examples=30)
@given(st.integers(0, 16), st.integers(0, 16), st.integers(0, 16))
def test_moving_one_of_two_challengers_moves_no_key_of_the_other(before: int, after: int, other: int) -> None:
    for moved in (0, 1):
        old, new = [other / 32, other / 32], [other / 32, other / 32]
        old[moved], new[moved] = before / 32, after / 32
        for then, now in zip(names(router(old)), names(router(new)), strict=True):
            if then != now:
                assert {f"c{moved}", "champion"} == {then, now}


@settings(max_examples=30)
@given(st.lists(st.sampled_from(KEYS), max_size=50))
def test_a_key_goes_where_it_goes_whoever_is_beside_it(keys: list[str]) -> None:
    made = router([0.25, 0.25])
    assert [made.route([key])[0] for key in keys] == made.route(keys).tolist()


def test_assignment_is_the_same_in_every_process() -> None:
    # Written down: a change of the hash deals every running experiment anew.
    assert ["c1", "champion", "champion", "c1", "champion", "champion", "c0", "c1"] == names(router([0.25, 0.25]))[:8]


def test_long_salts_that_begin_alike_deal_differently() -> None:
    assert names(router([0.5], "a-very-long-use-case-name-1")) != names(router([0.5], "a-very-long-use-case-name-2"))


@pytest.mark.parametrize("shares", [[math.nan], [-0.5], [1.5]])
def test_shares_that_are_no_shares_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        router(shares)


def test_two_variants_of_one_name_are_refused() -> None:
    twice = [variant("champion", 1.0, "champion"), variant("shadow", 0.0, "shadow"), variant("shadow", 0.0, "shadow")]
    with pytest.raises(ValueError, match="clash"):
        Router(RoutingTable(use_case="u", epoch=3, decided_at_ms=0, reason="", salt="", variants=twice))


def test_no_keys_give_no_positions() -> None:
    assert np.array_equal(router([0.25]).route([]), np.empty(0, np.intp))
