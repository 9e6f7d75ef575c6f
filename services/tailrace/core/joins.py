"""Joins outcomes to predictions on event time, so that arrival order cannot change the final table.

One winning outcome per event: the eligible one of the most trusted source, then of highest revision, ties broken by
content; or, where outcomes have ids, one per id, and a rule that reduces them to a label. A label -> provisional ->
final, and may be corrected until the horizon ends. Outcomes are held per event, not per prediction: champion and shadow
share them. All is done by the batch, on columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailrace.core.closed_events import ClosedEvents
from tailrace.core.conflicts import chain_predictions, enter_reduced, enter_single
from tailrace.core.due_times import DueTimes, in_order
from tailrace.core.erasure import Asked
from tailrace.core.held_outcomes import HeldOutcomes
from tailrace.core.join_records import Arrivals, JoinSpec, Outcome, Reports, Scored, Unattributed
from tailrace.core.join_table import NO_OUTCOME, JoinTable, Rows
from tailrace.core.labels import Changes, settle
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.outcome_table import OutcomeTable

__all__ = ["Arrivals", "Changes", "JoinSpec", "JoinState", "Outcome", "Reports", "Scored", "Unattributed"]

_NOWHERE: Final = np.empty(0, np.int64)


class JoinState:
    """Streaming join. Not thread-safe. O(1) per record amortised, O(due) per watermark.

    Attributes:
        table: Predictions that wait or may still be corrected.
        outcomes: Outcomes by event and id; None where an event has one.
        sources: Who reports, by code; None where outcomes name no source.
        closed: Events whose window has closed.
        held: Outcomes that came before any prediction of their event.
        counts: Duplicates, conflicts, stale revisions and unattributed outcomes by name.
        side: Outcomes that judge nothing, since the caller last cleared it.
        added: Rows that came, since the caller last cleared it.
        touched: Rows that changed, since the caller last cleared it.
    """

    def __init__(self, spec: JoinSpec, watermark_ms: int = -1) -> None:
        self.spec = spec
        self.watermark_ms = watermark_ms
        self.table = JoinTable()
        self.outcomes = OutcomeTable() if spec.reduce is not None else None
        self.sources = SourceBook(spec.trust) if spec.trust is not None else None
        self.held = HeldOutcomes(spec.hold_ms)
        self.counts: Counter[str] = Counter()
        self.side: list[Unattributed] = []
        self.added: list[Rows] = []
        self.touched: list[Rows] = []
        self._due = DueTimes(spec.window_ms)
        self.closed = ClosedEvents(self.table, spec)
        self._early: set[str] = set()
        self._gone: list[Rows] = []

    def __len__(self) -> int:
        """Events that are kept."""
        return len(self.table.index) + len(self.held)

    def restore(self, heads: Rows) -> None:
        """Takes back what waits: first rows of events that stand in `table` already."""
        self.closed = ClosedEvents(self.table, self.spec)
        closed = self.table.closed[heads]
        self._due.add(self._end_ms(heads[~closed]), heads[~closed])
        self.closed.add(heads[closed], self.watermark_ms)
        rows, events = self.table.expand(heads)
        early = heads[
            events[(self.table.version[rows] == 0) & (self.table.outcome[self.table.head[rows]] != NO_OUTCOME)]
        ]
        self._early.update(text.event_id for text in self.table.read(early))

    def predict(self, new: Arrivals) -> Changes:  # hot path
        """Takes predictions; gives the changes they cause.

        An outcome that was there before its prediction judges it at the next `advance`: what is known of a
        stream then follows from its watermarks, and not from which of two topics was read faster.
        """
        table, index = self.table, self.table.index
        self.closed.wake(new.event_ids)
        self._make_room(new.event_ids)
        cohorts = np.array(table.cohort_numbers(new.cohorts))[new.cohort]
        rows = table.add(new.texts, new.event_time_ms, new.score, cohorts, new.flags)
        heads = index.enter(new.event_ids, rows)
        fresh = heads == rows
        chained = chain_predictions(table, np.flatnonzero(~fresh).tolist(), heads, rows, self.counts)
        if len(self.held):
            early = self.held.held(new.event_ids) & fresh
            self._take_held([new.event_ids[at] for at in np.flatnonzero(early).tolist()], rows[early])
        self._due.add(self._end_ms(rows[fresh]), rows[fresh])
        self.added.append(rows[table.serial[rows] >= 0])
        # A prediction behind the watermark is closed by the next `advance`, as if it had been in time.
        late = [at for at in chained if table.outcome[heads[at]] == NO_OUTCOME]
        self._early.update(new.event_ids[at] for at in chained if table.outcome[heads[at]] != NO_OUTCOME)
        return self._settle(rows[late]) if late else Changes.none()

    def observe(self, new: Reports, heads: Rows | None = None) -> Changes:  # hot path
        """Takes outcomes; gives the changes they cause. One without prediction is held.

        `heads`, int64 (n,), are the first rows of their events, where the caller knows them.
        """
        if heads is None:
            self.closed.wake(new.event_ids)
            heads = self.table.index.find(new.event_ids)
        missing = np.flatnonzero(heads < 0)
        self._make_room([new.event_ids[at] for at in missing.tolist()])
        aside: list[tuple[int, str]] = []
        for at in missing.tolist():
            reason = self._hold(new.event_ids[at], new.outcome(at))
            aside += [(at, reason)] if reason else []
        parts: list[tuple[NDArray[np.int64], Changes]] = []
        waiting = np.flatnonzero(heads >= 0)
        while waiting.size:
            # One outcome of each event at a time: those of one event follow upon one another.
            _, first = np.unique(heads[waiting], return_index=True)
            now = waiting[np.sort(first)]
            parts.append(self._judge(new, now, heads[now], aside))
            waiting = np.delete(waiting, first)
        for at, reason in sorted(aside):
            self._aside(new.event_ids[at], new.outcome(at), reason)
        return Changes.in_order(parts)

    def advance(self, watermark_ms: int) -> Changes:
        """Moves stream time: judges by outcomes that came first, closes windows and drops orphans."""
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        names = sorted(self._early)
        self.closed.wake(names)
        early = self.table.index.find(names)
        self._early.clear()
        judged = self._settle(self.table.expand(early[early >= 0])[0]) if early.size else Changes.none()
        for event_id, outcomes in self.held.take_due(self.watermark_ms):
            for outcome in outcomes:
                self._aside(event_id, outcome, "orphan")
        heads = in_order(self.table, self._due.take(self.watermark_ms))
        if not heads.size:
            return judged
        self.table.closed[heads] = True
        self.touched.append(heads)
        self.closed.add(heads, self.watermark_ms)
        rows, events = self.table.expand(heads)
        if len(rows) > len(heads):
            names = [text.prediction_id for text in self.table.read(rows)]
            rows = rows[sorted(range(len(rows)), key=lambda at: (events[at], names[at]))]
        return Changes.joined([judged, self._settle(rows)])

    def forget(self) -> None:
        """Forgets events that can no longer be corrected; `take_gone` hands them over."""
        self._remove(self.closed.take(self.watermark_ms))

    def erase(self, asked: Asked) -> Rows:
        """Forgets the events that are asked for, whatever is known of them; gives the rows `take_gone` hands over. O(all)."""
        self.closed.wake_asked(asked)
        table = self.table
        rows = np.setdiff1d(table.in_use(), np.concatenate([_NOWHERE, *self._gone]))
        heads = rows[table.head[rows] == rows]
        heads = heads[asked(table.texts[heads].tolist(), table.event_time_ms[heads])]
        self._due.remove(heads)
        self.closed.remove(heads)
        self._early.difference_update(table.event_ids(heads))
        self._remove(heads)
        return table.expand(heads)[0]

    def take_gone(self) -> Rows:
        """Rows of events that were forgotten since the last call; the caller frees them."""
        gone, self._gone = self._gone, []
        return np.concatenate(gone) if gone else _NOWHERE

    def pack(self, known_ms: int, *, busy: bool = False) -> None:
        """Packs some closed events of which nothing is known since a time; if `busy` only where many wait. Moves rows."""
        self.closed.pack(known_ms, self.outcomes, busy=busy)
        new = self.table.renumber()
        if new is not None:
            self._due.renumber(new)
            self.closed.renumber(new)
            if self.outcomes is not None:
                self.outcomes.renumber(new)

    def _take_held(self, event_ids: list[str], rows: Rows) -> None:
        """Enters what was held for events, all at once: where a worker catches up, there are many."""
        names: list[str] = []
        outcomes: list[Outcome] = []
        heads: list[int] = []
        times_ms = self.table.event_time_ms[rows].tolist()
        for event_id, row, time_ms in zip(event_ids, rows.tolist(), times_ms, strict=True):
            first_ms, end_ms = time_ms - self.spec.skew_ms, time_ms + self.spec.window_ms
            last_ms = end_ms + self.spec.correction_ms
            inside = []
            for outcome in self.held.take(event_id) or ():
                if first_ms <= outcome.time_ms < (last_ms if outcome.retract else end_ms):
                    inside.append(outcome)
                else:
                    self._aside(event_id, outcome, "out_of_window")
            if not inside:
                continue
            self._early.add(event_id)
            newest = {outcome.outcome_id: outcome for outcome in sorted(inside, key=attrgetter("rank"))}
            names += [event_id] * len(newest)
            outcomes += newest.values()
            heads += [row] * len(newest)
        if names:
            self._enter(Reports.of(names, outcomes), np.arange(len(names)), np.array(heads))

    def _judge(
        self, new: Reports, places: NDArray[np.int64], heads: Rows, aside: list[tuple[int, str]]
    ) -> tuple[NDArray[np.int64], Changes]:
        """Outcomes of distinct events: gives their changes and the place of the outcome behind each."""
        table, spec = self.table, self.spec
        retract, time_ms = new.retract[places], new.time_ms[places]
        start_ms = table.event_time_ms[heads]
        end_ms = start_ms + spec.window_ms
        horizon_ms = end_ms + spec.lateness_ms + spec.correction_ms
        late = table.closed[heads] & (horizon_ms <= self.watermark_ms)
        # Taking an outcome back is no outcome: it may come as late as a correction may.
        last_ms = np.where(retract, end_ms + spec.correction_ms, end_ms)
        outside = ~late & ~((start_ms - spec.skew_ms <= time_ms) & (time_ms < last_ms))
        aside += [(at, "too_late") for at in places[late].tolist()]
        aside += [(at, "out_of_window") for at in places[outside].tolist()]
        wins = np.flatnonzero(~(late | outside))
        wins = wins[self._enter(new, places[wins], heads[wins])]
        heads, places = heads[wins], places[wins]
        rows, events = table.expand(heads)
        changes = self._settle(rows)
        return places[events[changes.places]], changes

    def _enter(self, new: Reports, places: NDArray[np.int64], heads: Rows) -> NDArray[np.bool_]:
        """Enters eligible outcomes, those at some places, as what is known of their events; gives which count."""
        rule, outcomes = self.spec.reduce, self.outcomes
        if rule is None or outcomes is None:
            wins = enter_single(self.table, new, places, heads, self.counts, self.sources)
        else:
            wins = enter_reduced(self.table, outcomes, rule, new, places, heads, self.counts, self.sources)
        self.touched.append(heads[wins])
        return wins

    def _settle(self, rows: Rows) -> Changes:
        latest_ms = None if self.outcomes is None else self.outcomes.latest_ms(self.table.head[rows].astype(np.int64))
        changes = settle(self.table, rows, self.spec, latest_ms)
        self.touched.append(changes.rows)
        return changes

    def _end_ms(self, heads: Rows) -> NDArray[np.int64]:
        return self.table.event_time_ms[heads] + (self.spec.window_ms + self.spec.lateness_ms)

    def _remove(self, heads: Rows) -> None:
        if not heads.size:
            return
        self.table.index.remove(self.table.event_ids(heads))
        rows, _ = self.table.expand(heads)
        self._gone.append(rows)
        if self.outcomes is not None:
            self.outcomes.remove(heads)

    def _hold(self, event_id: str, outcome: Outcome) -> str:
        """Holds an outcome; gives the reason if it is too old for that."""
        if outcome.time_ms + self.spec.hold_ms <= self.watermark_ms:
            # The earliest event it can belong to ended its horizon by then: it came too late for one.
            horizon_ms = outcome.time_ms + self.spec.lateness_ms + self.spec.correction_ms
            return "too_late" if horizon_ms <= self.watermark_ms else "orphan"
        if not self.held.hold(event_id, outcome):
            self.counts["duplicate"] += 1
        return ""

    def _make_room(self, event_ids: Sequence[str]) -> None:
        """Evicts what is due first, where new events would not fit; a batch makes its room at once."""
        if len(self) + len(event_ids) <= self.spec.max_events:
            return
        rows = self.table.index.find(event_ids).tolist()
        new = {name for name, row in zip(event_ids, rows, strict=True) if row < 0 and name not in self.held}
        excess = len(self) + len(new) - self.spec.max_events
        # What can only be corrected goes before what still waits for its outcome.
        while excess > 0 and (oldest := in_order(self.table, self.closed.take_oldest())).size:
            heads, kept = oldest[:excess], oldest[excess:]
            self.closed.keep(kept)
            self.counts["evicted_closed"] += len(heads)
            excess -= len(heads)
            self._remove(heads)
        while excess > 0 and (oldest := in_order(self.table, self._due.take_oldest())).size:
            heads, kept = oldest[:excess], oldest[excess:]
            self._due.add(self._end_ms(kept), kept)
            for text in self.table.read(heads):
                self._aside(text.event_id, None, "evicted_unresolved")
            excess -= len(heads)
            self._remove(heads)
        while excess > 0 and (first := self.held.first_due()) is not None:
            self.held.take(first[1])
            self._aside(first[1], None, "evicted_unresolved")
            excess -= 1

    def _aside(self, event_id: str, outcome: Outcome | None, reason: str) -> None:
        self.counts[reason] += 1
        self.side.append(Unattributed(event_id, outcome, reason))
