"""What feedback keeps of one label: its join, and the windows in which its labels count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.ports import Output
from tailrace.contracts.records import Quarantined
from tailrace.core.attribution import Attribution
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.joins import Arrivals, Changes, JoinSpec, JoinState, Outcome, Reports, Unattributed
from tailrace.core.labels import FINAL
from tailrace.core.number_readings import NumberReadings
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.quality import QualityWindows, WindowKey, pairs
from tailrace.core.quarantine import distrusted
from tailrace.core.readings import Readings, ReadingSpec
from tailrace.core.window_spec import PLAIN, WindowSpec
from tailrace.feedback.changelog import Changelog, Restored


class LabelState:
    """State of one label.

    Windows are kept twice: `windows` counts everything and is what is published; a second set counts
    events that the join has forgotten. Only the second is stored: the rest follows from the events.

    Args:
        spec: How its outcomes are joined.
        kept_ms: How long windows are kept.
        restored: What the changelog holds; None to begin.
        watermark_ms: Stream time reached; -1 to begin.
        counted: What its windows hold.
    """

    def __init__(
        self,
        spec: JoinSpec,
        kept_ms: int,
        restored: Restored | None = None,
        watermark_ms: int = -1,
        counted: WindowSpec = PLAIN,
    ) -> None:
        self._kept_ms = kept_ms
        self._join = JoinState(spec, watermark_ms)
        self._attribution = Attribution(spec) if spec.entity is not None else None
        self._grid = counted.grid
        self.windows = QualityWindows(counted)
        self._settled = QualityWindows(counted)
        self._dropped: list[WindowKey] = []
        self._spans: Sequence[Quarantined] = ()
        if restored is not None:
            self._restore(restored)

    @property
    def open_events(self) -> int:
        """Events the join keeps."""
        return len(self._join)

    @property
    def table(self) -> JoinTable:
        """Predictions the join keeps."""
        return self._join.table

    @property
    def sources(self) -> SourceBook | None:
        """Who reports, by code; None where outcomes name no source."""
        return self._join.sources

    @property
    def source_names(self) -> list[str]:
        """Names of sources by code; none where outcomes name no source."""
        return self._join.sources.names if self._join.sources is not None else []

    @property
    def added(self) -> Rows:
        """Rows of the newest predictions."""
        return self._join.added[-1]

    def held(self, key: str) -> list[Outcome] | None:
        """Outcomes that wait for a prediction of an event, or for stream time; None where there are none."""
        attribution = self._attribution
        return self._join.held.get(key) if attribution is None else attribution.held.get(key)

    def predict(self, arrivals: Arrivals) -> Changes:
        """Takes predictions."""
        changes = self._join.predict(arrivals)
        table, rows = self.table, self._join.added[-1]
        if self._attribution is not None:
            self._attribution.predicted(table, rows)
        self.windows.predicted(table, rows)
        chained = rows[table.head[rows] != rows]
        if chained.size:
            self.windows.paired(table, *pairs(table, chained))
        return self._count(changes)

    def observe(self, reports: Reports) -> Changes:
        """Takes outcomes."""
        if self._attribution is not None:
            self._attribution.hold(reports)
            return Changes.none()
        return self._count(self._join.observe(reports))

    def advance(self, watermark_ms: int) -> Changes:
        """Moves stream time."""
        parts = []
        if self._attribution is not None and self._join.outcomes is not None:
            resolved = self._attribution.resolve(watermark_ms, self.table, self._join.outcomes)
            parts.append(self._count(self._join.observe(resolved.reports, resolved.heads)))
        parts.append(self._count(self._join.advance(watermark_ms)))
        return Changes.joined(parts)

    def forget(self, now_ms: int) -> None:
        """Forgets what can no longer change, and windows that nobody looks back at."""
        self._join.forget()
        self.table.forget_cohorts()
        self.windows.drop_before(now_ms - self._kept_ms)
        self._dropped += self._settled.drop_before(now_ms - self._kept_ms)

    def store(self, changelog: Changelog) -> list[Output]:
        """What the changelog has to be told since the last call; frees what is gone."""
        join, table = self._join, self.table
        gone = join.take_gone()
        self._settled.add_rows(table, gone)
        left_out = gone[table.aside[gone] & (table.status[gone] == FINAL)]
        self._settled.labelled(table, left_out, table.label[left_out], -1)
        self._settled.add_delays(table, gone)
        added, touched = (np.concatenate([np.empty(0, np.int64), *rows]) for rows in (join.added, join.touched))
        outputs = list(changelog.batch(table, join.outcomes, added, np.unique(touched), gone))
        held = join.held
        if self._attribution is not None:
            held = self._attribution.held
            self._attribution.forget(table, gone)
        table.remove(gone)
        if join.sources is not None:
            outputs += changelog.sources(join.sources.names)
        outputs += [changelog.held(key, self.held(key)) for key in sorted(held.touched)]
        join.added, join.touched, held.touched = [], [], set()
        outputs += [changelog.window(key, self._settled.counts(key)) for key in sorted(self._settled.changed)]
        outputs += [changelog.window(key, None) for key in self._dropped]
        self._settled.changed.clear()
        self._dropped = []
        return outputs

    def take_side(self) -> list[Unattributed]:
        """Outcomes that judge nothing, since the last call."""
        side, self._join.side = self._join.side, []
        if self._attribution is not None:
            side += self._attribution.side
            self._attribution.side = []
        return side

    def take_counts(self) -> Counter[str]:
        """Duplicates, conflicts, stale revisions, evictions and outcomes set aside by name, since the last call."""
        counts, self._join.counts = self._join.counts, Counter()
        if self._attribution is not None:
            counts += self._attribution.counts
            self._attribution.counts = Counter()
        return counts

    def set_aside(self, spans: Sequence[Quarantined]) -> None:
        """Takes labels of sources that are not trusted out of the windows, now and as they come."""
        self._spans = spans
        table = self.table
        rows = table.in_use() if spans else np.empty(0, np.int64)
        rows = rows[(table.status[rows] == FINAL) & ~table.aside[rows]]
        rows = rows[distrusted(spans, self.source_names, table.told_by[rows], table.event_time_ms[rows])]
        table.aside[rows] = True
        self.windows.labelled(table, rows, table.label[rows], -1)

    def readings(self, spec: ReadingSpec, watermark_ms: int) -> Readings | NumberReadings:
        """What can be said now of windows whose labels are still coming."""
        if self._grid is not None:
            return NumberReadings(self._grid, spec.window_ms + spec.lateness_ms, self.windows, watermark_ms)
        return Readings(spec, self.windows, self._settled, self.table, watermark_ms)

    def take_changed_windows(self, waiting: Iterable[WindowKey] = ()) -> list[WindowKey]:
        """Windows to publish: those that changed, and the newest of the traffic, so that stream time is seen.

        Args:
            waiting: Others to be published as well.
        """
        changed = self.windows.changed | set(waiting)
        whole = [key for key in self.windows if key.slice == "" and key.variant != "shadow"]
        if whole:
            changed.add(max(whole))
        self.windows.changed.clear()
        return sorted(changed)

    def _count(self, changes: Changes) -> Changes:
        if not changes.rows.size:
            return changes
        table = self.table
        counted, told = changes, changes
        if self._spans:
            before, now = self._set_aside(changes)
            counted, told = changes.taken(~before), changes.taken(~now)
        replaced = counted.taken(~np.isnan(counted.previous))
        self.windows.labelled(table, replaced.rows, replaced.previous, -1)
        final = final_of(told)
        self.windows.labelled(table, final.rows, final.label)
        return changes

    def _set_aside(self, changes: Changes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which labels were aside before their change, and which are after it: bool (n,) each."""
        table, rows = self.table, changes.rows
        now = distrusted(self._spans, self.source_names, changes.source, table.event_time_ms[rows])
        now &= (changes.status == FINAL) & ~np.isnan(changes.label)
        before = table.aside[rows]
        order = np.argsort(rows, kind="stable")
        again = order[1:][rows[order[1:]] == rows[order[:-1]]]
        earlier = order[:-1][rows[order[1:]] == rows[order[:-1]]]
        before[again] = now[earlier]
        table.aside[rows] = now
        return before, now

    def _restore(self, restored: Restored) -> None:
        for key, counts in restored.windows.items():
            self._settled.restore(key, counts)
            self.windows.restore(key, counts)
        self._settled.changed.clear()
        join, table = self._join, restored.table
        join.table = table
        if join.outcomes is not None:
            join.outcomes = restored.outcomes
        if join.sources is not None:
            join.sources = SourceBook(join.spec.trust or {}, restored.sources)
        join.restore(restored.heads)
        live: Rows = table.live()
        if self._attribution is not None:
            self._attribution.predicted(table, live)
        held = join.held if self._attribution is None else self._attribution.held
        for name, outcomes in restored.held.items():
            held.restore(name, outcomes)
        self.windows.add_rows(table, live)
        # What was published already would be published again: harmless, the newest record of a key holds.


def final_of(changes: Changes) -> Changes:
    """Those that are final labels."""
    return changes.taken((changes.status == FINAL) & ~np.isnan(changes.label))
