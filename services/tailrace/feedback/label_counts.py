"""The windows in which the labels of one kind count, whoever joined them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.ports import Output
from tailrace.contracts.retraining import Quarantined
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.joins import Changes
from tailrace.core.labels import FINAL
from tailrace.core.lost_outcomes import Span, within
from tailrace.core.number_readings import NumberReadings
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.quality import QualityWindows
from tailrace.core.quarantine import distrusted
from tailrace.core.readings import Readings, ReadingSpec
from tailrace.core.shadow_pairs import pairs
from tailrace.core.window_counts import WindowCounts, WindowKey
from tailrace.core.window_spec import WindowSpec
from tailrace.feedback.changelog import Changelog


class LabelCounts:
    """Counts of the predictions in a table and of those that have left it.

    Windows are kept twice: `windows` counts everything and is what is published; `settled` counts events that the
    join no longer holds. Only the second is stored: the rest follows from the table. Of events that the join has
    packed, delays are counted beside these.

    Args:
        table: Predictions with what is known of them; somebody else's, who says here what happens in it.
        sources: Who reports, by code; None where outcomes name no source.
        kept_ms: How long windows are kept.
        counted: What the windows hold.

    Attributes:
        left_out: Told the spans of events whose outcomes may have been lost, before these are looked for in the table.
    """

    def __init__(self, table: JoinTable, sources: SourceBook | None, kept_ms: int, counted: WindowSpec) -> None:
        self.left_out: Callable[[Sequence[Span]], None] | None = None
        self.table = table
        self.sources = sources
        self.windows = QualityWindows(counted)
        self.settled = QualityWindows(counted)
        self._packed = QualityWindows(counted)
        self._kept_ms = kept_ms
        self._grid = counted.grid
        self._dropped: list[WindowKey] = []
        self._forgotten: list[WindowKey] = []
        self._spans: Sequence[Quarantined] = ()
        self._lost: Sequence[Span] = ()

    @property
    def source_names(self) -> list[str]:
        """Names of sources by code; none where outcomes name no source."""
        return self.sources.names if self.sources is not None else []

    def predicted(self, rows: Rows) -> None:
        """Takes predictions that have come: int64 (n,)."""
        table = self.table
        self.windows.predicted(table, rows)
        chained = rows[table.head[rows] != rows]
        if chained.size:
            self.windows.paired(table, *pairs(table, chained))

    def changed(self, changes: Changes) -> None:
        """Takes labels that have changed."""
        if not changes.rows.size:
            return
        counted, told = changes, changes
        if self._spans or self._lost:
            before, now = self._set_aside(changes)
            counted, told = changes.taken(~before), changes.taken(~now)
        replaced = counted.taken(~np.isnan(counted.previous))
        self.windows.labelled(self.table, replaced.rows, replaced.previous, -1)
        final = final_of(told)
        self.windows.labelled(self.table, final.rows, final.label)

    def leaving(self, gone: Rows) -> None:
        """Takes predictions that are about to leave the table: int64 (n,)."""
        table = self.table
        self.settled.add_rows(table, gone)
        left_out = gone[table.aside[gone] & (table.status[gone] == FINAL)]
        self.settled.labelled(table, left_out, table.label[left_out], -1)
        self.settled.add_delays(table, gone[~within(self._lost, table.event_time_ms[gone])])

    def packed(self, heads: Rows, times: int) -> None:
        """Takes events, int64 (n,) first rows, that are about to be packed, or were unpacked with `times` -1."""
        self._packed.add_delays(self.table, self.table.expand(heads)[0], times)

    def forget(self, now_ms: int) -> None:
        """Forgets windows that nobody looks back at."""
        self._packed.drop_before(now_ms - self._kept_ms)
        self._forgotten += self.windows.drop_before(now_ms - self._kept_ms)
        self._dropped += self.settled.drop_before(now_ms - self._kept_ms)

    def store(self, changelog: Changelog) -> list[Output]:
        """What the changelog has to be told since the last call."""
        outputs = [changelog.window(key, self.settled.counts(key)) for key in sorted(self.settled.changed)]
        outputs += [changelog.window(key, None) for key in self._dropped]
        self.settled.changed.clear()
        self._dropped = []
        return outputs

    def restore(self, windows: Mapping[WindowKey, WindowCounts]) -> None:
        """Takes back what was stored of predictions that have left, and counts those in the table anew."""
        for key, counts in windows.items():
            self.settled.restore(key, counts)
            self.windows.restore(key, counts)
        self.settled.changed.clear()
        # What was published already would be published again: harmless, the newest record of a key holds.
        self.windows.add_rows(self.table, self.table.live())

    def set_aside(self, spans: Sequence[Quarantined], lost: Sequence[Span] = ()) -> None:
        """Takes labels out of the windows, now and as they come.

        Those of a source after its quarantine, which is known to have ended later, count again.

        Args:
            spans: Sources whose labels are not trusted.
            lost: Events whose outcomes may have been lost.
        """
        self._spans, self._lost = spans, lost
        if self.left_out is not None:
            self.left_out(lost)
        if not spans and not lost:
            return
        table = self.table
        rows = table.in_use()
        rows = rows[table.status[rows] == FINAL]
        now = self._counts_nowhere(table.told_by[rows], table.event_time_ms[rows])
        for times, changed in ((-1, rows[now & ~table.aside[rows]]), (1, rows[~now & table.aside[rows]])):
            table.aside[changed] = times < 0
            self.windows.labelled(table, changed, table.label[changed], times)

    def readings(self, spec: ReadingSpec, watermark_ms: int) -> Readings | NumberReadings:
        """What can be said now of windows whose labels are still coming."""
        if self._grid is not None:
            return NumberReadings(self._grid, spec.window_ms + spec.lateness_ms, self.windows, watermark_ms)
        return Readings(spec, self.windows, (self.settled, self._packed), self.table, watermark_ms, self._lost)

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

    def take_forgotten_windows(self) -> list[WindowKey]:
        """Windows that were forgotten since the last call, in order: what was published of them is to be deleted."""
        forgotten, self._forgotten = sorted(self._forgotten), []
        return forgotten

    def _set_aside(self, changes: Changes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which labels were aside before their change, and which are after it: bool (n,) each."""
        table, rows = self.table, changes.rows
        now = self._counts_nowhere(changes.source, table.event_time_ms[rows])
        now &= (changes.status == FINAL) & ~np.isnan(changes.label)
        before = table.aside[rows]
        order = np.argsort(rows, kind="stable")
        again = order[1:][rows[order[1:]] == rows[order[:-1]]]
        earlier = order[:-1][rows[order[1:]] == rows[order[:-1]]]
        before[again] = now[earlier]
        table.aside[rows] = now
        return before, now

    def _counts_nowhere(self, source: NDArray[np.uint8], times_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which labels, bool (n,), are set aside: by codes of who reported them and times of their events."""
        return distrusted(self._spans, self.source_names, source, times_ms) | within(self._lost, times_ms)


def final_of(changes: Changes) -> Changes:
    """Those that are final labels."""
    return changes.taken((changes.status == FINAL) & ~np.isnan(changes.label))
