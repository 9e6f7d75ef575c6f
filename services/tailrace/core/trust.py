"""How far who reports an outcome is trusted, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

Trust = Literal["user", "system", "human"]
"""Tiers of trust, the lowest first: anybody who uses the product; a rule or another system; somebody who looked."""
TIERS: Final[tuple[Trust, ...]] = get_args(Trust)
ANYBODY: Final = "*"
"""Stands for every source that is not named; without it those have the lowest trust."""


def tier_of(trust: Mapping[str, Trust], name: str) -> int:
    """How far a source is trusted: its place in `TIERS`.

    Example:
        >>> tier_of({"analyst": "human", "*": "system"}, "rules")
        1
    """
    return TIERS.index(trust.get(name, trust.get(ANYBODY, TIERS[0])))
