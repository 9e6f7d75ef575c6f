"""Which predictions an outcome of an entity judges: a failure speaks of a turbine, and not of one prediction.

An outcome is resolved when stream time has come to it: then every prediction it can judge is there, in whatever
order they came. From then on the join treats it as outcomes of single events, which share its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.held_outcomes import HeldOutcomes
from tailrace.core.join_records import JoinSpec, Outcome, Reports, Unattributed
from tailrace.core.join_table import ACTIVATED, BLOCKED, JoinTable, Rows
from tailrace.core.outcome_table import OutcomeTable

_NONE: Final = np.empty(0, np.int64)


class Resolved(NamedTuple):
    """Outcomes of single events, and int64 (n,) the first rows of these events."""

    reports: Reports
    heads: Rows


class Attribution:
    """Resolves outcomes of entities to events. Not thread-safe. O(predictions of the entity) per outcome.

    Args:
        spec: The join's; its `attribution` says which of the predictions in the window get the credit.

    Attributes:
        held: Outcomes that wait for stream time, by entity and outcome id.
        side: Outcomes that judge nothing, since the caller last cleared it.
        counts: What became of outcomes that judge nothing, by name.
    """

    def __init__(self, spec: JoinSpec) -> None:
        self.spec = spec
        self.held = HeldOutcomes(0)
        self.side: list[Unattributed] = []
        self.counts: Counter[str] = Counter()
        self._touches: dict[str, list[int]] = {}

    def predicted(self, table: JoinTable, rows: Rows) -> None:
        """Takes note of new predictions, int64 (n,)."""
        heads = rows[table.head[rows] == rows]
        for entity, head in zip(self._entities(table, heads), heads.tolist(), strict=True):
            if entity is not None:
                self._touches.setdefault(entity, []).append(head)

    def forget(self, table: JoinTable, rows: Rows) -> None:
        """Forgets predictions whose events are gone, before their rows are freed: int64 (n,)."""
        heads = rows[table.head[rows] == rows]
        gone = set(heads.tolist())
        for entity in {entity for entity in self._entities(table, heads) if entity is not None}:
            left = [head for head in self._touches.get(entity, ()) if head not in gone]
            if left:
                self._touches[entity] = left
            else:
                self._touches.pop(entity, None)

    def hold(self, reports: Reports) -> None:
        """Takes outcomes; `event_ids` are those of entities."""
        for at, entity in enumerate(reports.event_ids):
            outcome = reports.outcome(at)
            if not self.held.hold(_encode(entity, outcome.outcome_id), outcome):
                self.counts["duplicate"] += 1
        while len(self.held) > self.spec.max_events and (first := self.held.first_due()) is not None:
            for outcome in self.held.take(first[1]) or ():
                self._aside(first[1], outcome, "evicted_unresolved")

    def resolve(self, watermark_ms: int, table: JoinTable, outcomes: OutcomeTable) -> Resolved:
        """Outcomes to which stream time has come, as outcomes of the events they judge, in order of their time."""
        ids: list[str] = []
        made: list[Outcome] = []
        heads: list[Rows] = []
        for key, waiting in self.held.take_due(watermark_ms):
            outcome = max(waiting, key=attrgetter("rank"))
            found, names, parts = self._judges(key, outcome, watermark_ms, table, outcomes)
            heads.append(found)
            ids += names
            made += parts
        return Resolved(Reports.of(ids, made), np.concatenate(heads) if heads else _NONE)

    def _judges(
        self, key: str, outcome: Outcome, watermark_ms: int, table: JoinTable, outcomes: OutcomeTable
    ) -> tuple[Rows, list[str], list[Outcome]]:
        entity = msgspec.json.decode(key, type=tuple[str, str])[0]
        heads = np.array(self._touches.get(entity, ()), dtype=np.int64)
        entered = outcomes.find(heads, [outcome.outcome_id] * len(heads))
        before = heads[entered >= 0]
        newest = outcomes.revision[entered[entered >= 0]]
        if newest.size and newest.max() > outcome.revision:
            self.counts["stale_revision"] += 1
            return _NONE, [], []
        targets, names = self._targets(table, heads, outcome)
        withdrawn = np.setdiff1d(before, targets)
        if not targets.size and not withdrawn.size:
            self._aside(key, outcome, self._why_not(heads, outcome, watermark_ms))
        share = 1.0 / len(targets) if self.spec.attribution == "linear" and targets.size else 1.0
        made = [msgspec.structs.replace(outcome, value=outcome.value * share)] * len(targets)
        # What an earlier revision said of predictions that this one does not judge is taken back, as of its own time.
        names += [text.event_id for text in table.read(withdrawn)]
        since_ms = outcomes.time_ms[outcomes.find(withdrawn, [outcome.outcome_id] * len(withdrawn))]
        made += [
            msgspec.structs.replace(outcome, retract=True, value=0.0, time_ms=time_ms) for time_ms in since_ms.tolist()
        ]
        return np.concatenate([targets, withdrawn]), names, made

    def _targets(self, table: JoinTable, heads: Rows, outcome: Outcome) -> tuple[Rows, list[str]]:
        """Events that an outcome judges, by event time and id: int64 (n,) first rows, and ids."""
        times = table.event_time_ms[heads]
        heads = heads[(times <= outcome.time_ms) & (outcome.time_ms < times + self.spec.window_ms)]
        heads = heads[_seen(table, heads)]
        ids = [text.event_id for text in table.read(heads)]
        order = sorted(range(len(heads)), key=lambda at: (int(table.event_time_ms[heads[at]]), ids[at]))
        if not outcome.left and self.spec.attribution == "last_touch":
            order = order[-1:]
        elif not outcome.left and self.spec.attribution == "first_touch":
            order = order[:1]
        return heads[order], [ids[at] for at in order]

    def _why_not(self, heads: Rows, outcome: Outcome, watermark_ms: int) -> str:
        if heads.size:
            return "out_of_window"
        horizon_ms = outcome.time_ms + self.spec.lateness_ms + self.spec.correction_ms
        return "too_late" if horizon_ms <= watermark_ms else "orphan"

    def _entities(self, table: JoinTable, rows: Rows) -> Sequence[str | None]:
        entity = self.spec.entity or ""
        texts = b"[" + b",".join([bytes(text.entities) for text in table.read(rows)]) + b"]"
        return [entities.get(entity) for entities in msgspec.json.decode(texts, type=list[dict[str, str]])]

    def _aside(self, key: str, outcome: Outcome, reason: str) -> None:
        self.counts[reason] += 1
        self.side.append(Unattributed(msgspec.json.decode(key, type=tuple[str, str])[0], outcome, reason))


def _encode(entity: str, outcome_id: str) -> str:
    return msgspec.json.encode((entity, outcome_id)).decode()


def _seen(table: JoinTable, heads: Rows) -> NDArray[np.bool_]:
    """Whether any prediction of an event was acted upon so that its outcome could be seen: bool (n,)."""
    rows, places = table.expand(heads)
    seen = np.zeros(len(heads), np.bool_)
    seen[places[(table.flags[rows] & (ACTIVATED | BLOCKED)) == ACTIVATED]] = True
    return seen
