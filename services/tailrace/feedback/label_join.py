"""The join of one label, and its part of the changelog."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tailrace.backends.ports import Output
from tailrace.core.attribution import Attribution
from tailrace.core.erasure import Asked
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.joins import Arrivals, Changes, JoinSpec, JoinState, Outcome, Reports, Unattributed
from tailrace.core.monitoring import HOUR_MS
from tailrace.core.outcome_sources import SourceBook
from tailrace.feedback.changelog import Changelog, Restored

BUSY = 1_000
"""Predictions of a batch from which on a worker is taken to be catching up."""


class LabelJoin:
    """Join of one label; whoever counts what it says builds on it.

    Args:
        spec: How its outcomes are joined.
        restored: What the changelog holds; None to begin.
        watermark_ms: Stream time reached; -1 to begin.
    """

    def __init__(self, spec: JoinSpec, restored: Restored | None = None, watermark_ms: int = -1) -> None:
        self._join = JoinState(spec, watermark_ms)
        self._attribution = Attribution(spec) if spec.entity is not None else None
        self._packs = spec.entity is None
        self._erased = [np.empty(0, np.int64)]
        if restored is not None:
            self._restore_join(restored)

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
        if self._attribution is not None:
            self._attribution.predicted(self.table, self.added)
        return changes

    def observe(self, reports: Reports) -> Changes:
        """Takes outcomes."""
        if self._attribution is not None:
            self._attribution.hold(reports)
            return Changes.none()
        return self._join.observe(reports)

    def advance(self, watermark_ms: int) -> Changes:
        """Moves stream time."""
        parts = []
        if self._attribution is not None and self._join.outcomes is not None:
            resolved = self._attribution.resolve(watermark_ms, self.table, self._join.outcomes)
            parts.append(self._join.observe(resolved.reports, resolved.heads))
        parts.append(self._join.advance(watermark_ms))
        return Changes.joined(parts)

    def forget(self, now_ms: int) -> None:
        """Forgets what can no longer change."""
        self._join.forget()
        self.table.forget_cohorts()

    def erase(self, asked: Asked) -> Rows:
        """Forgets the predictions of events that are asked for; gives their rows, int64 (n,), there until `store`."""
        rows = self._join.erase(asked)
        self._erased.append(self.table.serial[rows])
        return rows

    def store(self, changelog: Changelog) -> list[Output]:
        """What the changelog has to be told since the last call; frees what is gone."""
        join, table = self._join, self.table
        gone = join.take_gone()
        added, touched = (np.concatenate([np.empty(0, np.int64), *rows]) for rows in (join.added, join.touched))
        touched = np.unique(touched)
        self._done(added, touched, gone)
        outputs = list(changelog.batch(table, join.outcomes, added, touched, gone))
        outputs += changelog.erased(np.concatenate(self._erased))
        self._erased = [np.empty(0, np.int64)]
        held = join.held
        if self._attribution is not None:
            held = self._attribution.held
            self._attribution.forget(table, gone)
        table.remove(gone)
        if join.sources is not None:
            outputs += changelog.sources(join.sources.names)
        outputs += [changelog.held(key, self.held(key)) for key in sorted(held.touched)]
        join.added, join.touched, held.touched = [], [], set()
        if self._packs:
            # What the hour has brought is still asked for by the next tick.
            join.pack(join.watermark_ms - join.watermark_ms % HOUR_MS, busy=len(added) >= BUSY)
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

    def _done(self, added: Rows, touched: Rows, gone: Rows) -> None:
        """Told what a batch did, before the rows that are gone are freed: int64 each, distinct."""

    def _restore_join(self, restored: Restored) -> None:
        join, table = self._join, restored.table
        join.table = table
        if join.outcomes is not None:
            join.outcomes = restored.outcomes
        if join.sources is not None:
            join.sources = SourceBook(join.spec.trust or {}, restored.sources)
        join.restore(restored.heads)
        if self._attribution is not None:
            self._attribution.predicted(table, table.live())
        held = join.held if self._attribution is None else self._attribution.held
        for name, outcomes in restored.held.items():
            held.restore(name, outcomes)
