"""What goes into the join, and what stays outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import ACTIVATED, ASSERTED, BLOCKED, DECIDED, LEFT, RETRACTED, Cohort
from tailrace.core.reductions import Reduction, Touch
from tailrace.core.trust import Trust

_LINES = msgspec.json.Encoder()


class JoinSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How outcomes of one label are attributed; all spans in milliseconds.

    `closes_at_outcome` makes the first outcome final at once; `if_absent` False makes a prediction
    without outcome negative, None censors it; `max_events` is the hard cap of the state. `reduce` None: all
    outcomes of an event are revisions of one; else outcomes have ids, and those that hold are reduced to one label.
    `entity` names the entity that outcomes speak of, None where they speak of events; `attribution` says which of
    its predictions they judge. `trust` is the tier by source, None where outcomes name no source.
    """

    window_ms: int
    lateness_ms: int
    correction_ms: int
    hold_ms: int
    skew_ms: int = 5_000
    if_absent: bool | None = False
    closes_at_outcome: bool = False
    reduce: Reduction | None = None
    entity: str | None = None
    attribution: Touch = "every_touch"
    trust: Mapping[str, Trust] | None = None
    max_events: int = 2_000_000


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was reported of an event.

    `left` says that the event left observation, so that no outcome of it can be seen from then on. `source` is who
    reported it, "" for nobody, and `tier` how far that is trusted, a place in `trust.TIERS`.
    """

    revision: int
    retract: bool
    value: float
    time_ms: int
    outcome_id: str = ""
    left: bool = False
    source: str = ""
    tier: int = 0

    @property
    def rank(self) -> tuple[int, int, int, float, int, str]:
        """The greater counts, of two that speak of the same; what `conflicts` compares on columns."""
        kind = RETRACTED if self.retract else LEFT if self.left else ASSERTED
        return self.tier, self.revision, kind, self.value, self.time_ms, self.source


class Unattributed(msgspec.Struct, frozen=True, gc=False):
    """An outcome that judges nothing; `reason` is orphan, too_late, out_of_window or evicted_unresolved."""

    event_id: str
    outcome: Outcome | None
    reason: str


class Scored(msgspec.Struct, frozen=True, gc=False):
    """The part of a `Prediction` that its label and the metrics need; decoded from the same bytes.

    `entities` and `slices` stay JSON: they are handed on as they came.
    """

    prediction_id: str
    event_id: str
    key: str
    entities: msgspec.Raw
    slices: msgspec.Raw
    event_time_ms: int
    variant: str
    model_version: str
    score: float
    decision: bool
    activated: bool = True
    blocked: bool = False


class Arrivals(NamedTuple):
    """Predictions as columns, in order of arrival; n each.

    `texts` are `join_table.Text` as JSON arrays; `event_time_ms` int64, `score` float64, `flags` uint8; `cohort`
    int64, the place of each one's cohort among `cohorts`, which are distinct.
    """

    event_ids: list[str]
    texts: list[bytes]
    event_time_ms: NDArray[np.int64]
    score: NDArray[np.float64]
    flags: NDArray[np.uint8]
    cohorts: list[Cohort]
    cohort: NDArray[np.int64]

    @staticmethod
    def of(predictions: Sequence[Scored], amounts: Sequence[float] | None = None) -> Arrivals:  # hot path
        """Columns of predictions, of which there is at least one; `amounts` is the money at stake in each."""
        ids, events, keys, entities, slices, times, variants, versions, scores, *flags = zip(
            *map(msgspec.structs.astuple, predictions), strict=True
        )
        count = len(predictions)
        decided, activated, blocked = (np.fromiter(column, np.uint8, count) for column in flags[:3])
        cohorts = list(map(Cohort, variants, versions, map(bytes, slices)))
        numbers = {cohort: number for number, cohort in enumerate(dict.fromkeys(cohorts))}
        return Arrivals(
            list(events),
            _texts(list(zip(ids, events, keys, entities, *([amounts] if amounts is not None else []), strict=True))),
            np.fromiter(times, np.int64, count),
            np.fromiter(scores, np.float64, count),
            DECIDED * decided + ACTIVATED * activated + BLOCKED * blocked,
            list(numbers),
            np.array([numbers[cohort] for cohort in cohorts]),
        )


class Reports(NamedTuple):
    """Outcomes as columns, in order of arrival; `revision` and `time_ms` int64, `retract` bool, `value` float64.

    `outcome_ids` and `left`, bool (n,), are there where outcomes are reduced; `sources` and `tiers`, int8 (n,), where
    they name who reports.
    """

    event_ids: list[str]
    revision: NDArray[np.int64]
    retract: NDArray[np.bool_]
    value: NDArray[np.float64]
    time_ms: NDArray[np.int64]
    outcome_ids: Sequence[str] = ()
    left: NDArray[np.bool_] | None = None
    sources: Sequence[str] = ()
    tiers: NDArray[np.int8] | None = None

    @staticmethod
    def of(event_ids: list[str], outcomes: Sequence[Outcome]) -> Reports:
        """Columns of outcomes."""
        return Reports(
            event_ids,
            np.array([o.revision for o in outcomes], dtype=np.int64),
            np.array([o.retract for o in outcomes], dtype=np.bool_),
            np.array([o.value for o in outcomes], dtype=np.float64),
            np.array([o.time_ms for o in outcomes], dtype=np.int64),
            [o.outcome_id for o in outcomes],
            np.array([o.left for o in outcomes], dtype=np.bool_),
            [o.source for o in outcomes],
            np.array([o.tier for o in outcomes], dtype=np.int8),
        )

    def kinds(self, places: NDArray[np.int64]) -> NDArray[np.int8]:
        """What some of them do, int8: `ASSERTED`, `RETRACTED` or `LEFT`."""
        kinds = np.full(len(places), ASSERTED, np.int8)
        if self.left is not None:
            kinds[self.left[places]] = LEFT
        kinds[self.retract[places]] = RETRACTED
        return kinds

    def outcome(self, at: int) -> Outcome:
        """One of them."""
        return Outcome(
            int(self.revision[at]),
            bool(self.retract[at]),
            float(self.value[at]),
            int(self.time_ms[at]),
            self.outcome_ids[at] if self.outcome_ids else "",
            self.left is not None and bool(self.left[at]),
            self.sources[at] if self.sources else "",
            int(self.tiers[at]) if self.tiers is not None else 0,
        )


def _texts(parts: Sequence[tuple[Any, ...]]) -> list[bytes]:
    lines = _LINES.encode_lines(parts).split(b"\n")[:-1]
    # JSON that was laid out over several lines is rare enough to be encoded piece by piece.
    return lines if len(lines) == len(parts) else [_LINES.encode(part) for part in parts]
