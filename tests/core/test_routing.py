import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.contracts.records import RoutingTable, Variant
from tailrace.core.routing import Router

KEYS = [f"card-{number}" for number in range(4_000)]


def variant(name: str, role: str, share: float) -> Variant:
    return Variant(
        name=name,
        role=role,  # type: ignore[arg-type]  # checked by the router
        model_version=name,
        bundle_uri="",
        digest=name,
        share=share,
    )


def router(*shares: float, salt: str = "salt", shadow: bool = False) -> Router:
    """Challengers with the given shares; the champion takes the rest."""
    variants = [variant("champion", "champion", 1.0 - sum(shares))]
    variants += [variant(f"canary{at}", "canary", share) for at, share in enumerate(shares)]
    variants += [variant("shadow", "shadow", 0.0)] if shadow else []
    return Router(RoutingTable(use_case="uc", epoch=1, decided_at_ms=0, reason="", salt=salt, variants=variants))


def names(found: Router) -> list[str]:
    return [found.variants[at].name for at in found.route(KEYS)]


def test_single_champion_takes_everything() -> None:
    assert set(names(router(shadow=True))) == {"champion"}


@given(st.lists(st.sampled_from([0.05, 0.1, 0.25]), min_size=1, max_size=3))
def test_shares_are_respected(shares: list[float]) -> None:
    found = names(router(*shares))
    for at, share in enumerate(shares):
        assert abs(found.count(f"canary{at}") / len(KEYS) - share) < 4 * np.sqrt(share * (1 - share) / len(KEYS))


def test_key_keeps_its_variant() -> None:
    assert names(router(0.3)) == names(router(0.3))


def test_raising_a_share_moves_keys_from_the_champion_only() -> None:
    before, after = names(router(0.1)), names(router(0.3))
    assert all(now == "canary0" for then, now in zip(before, after, strict=True) if then == "canary0")
    assert after.count("canary0") > before.count("canary0")


def test_another_salt_deals_anew() -> None:
    assert names(router(0.5)) != names(router(0.5, salt="other"))


@pytest.mark.parametrize(
    "variants",
    [
        [],
        [variant("shadow", "shadow", 0.0)],
        [variant("a", "champion", 0.5), variant("b", "champion", 0.5)],
        [variant("a", "champion", 0.9), variant("b", "canary", 0.2)],
    ],
)
def test_table_without_exactly_one_champion_or_with_wrong_shares_is_refused(variants: list[Variant]) -> None:
    with pytest.raises(ValueError, match="epoch 1"):
        Router(RoutingTable(use_case="uc", epoch=1, decided_at_ms=0, reason="", salt="", variants=variants))
