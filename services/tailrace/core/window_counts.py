"""What a window of live quality is kept under, and its counts as they are stored."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tailrace.core.join_table import Cohort
from tailrace.core.window_extras import ExtraCounts


class WindowKey(NamedTuple):
    """A window: the day it starts on, and what it speaks of; slice "" is the whole."""

    start_ms: int
    variant: str
    model_version: str
    slice: str

    def text(self) -> str:
        """Key of the QUALITY topic."""
        return f"{self.start_ms}|{self.variant}|{self.model_version}|{self.slice}"


class WindowCounts(msgspec.Struct):
    """Counts of one window as they are stored; `delays` counts outcomes by class, score cell and delay as one number."""

    predictions: int = 0
    paired: int = 0
    disagreements: int = 0
    bins: list[int] = []
    n: list[int] = []
    positives: list[int] = []
    delays: dict[int, int] = {}
    extras: ExtraCounts | None = None


def keys_of(start_ms: int, cohort: Cohort) -> list[WindowKey]:
    """Windows that a day's predictions of a cohort count in, the whole first."""
    slices = msgspec.json.decode(cohort.slices, type=dict[str, str])
    parts = ["", *(f"{column}={value}" for column, value in slices.items())]
    return [WindowKey(start_ms, cohort.variant, cohort.model_version, part) for part in parts]
