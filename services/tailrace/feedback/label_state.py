"""What feedback keeps of one label: its join, and the windows in which its labels count."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.backends.ports import Output
from tailrace.contracts.retraining import Quarantined
from tailrace.core.join_table import Rows
from tailrace.core.joins import Arrivals, Changes, JoinSpec, Reports
from tailrace.core.lost_outcomes import Span
from tailrace.core.quality import QualityWindows
from tailrace.core.window_spec import PLAIN, WindowSpec
from tailrace.feedback.changelog import Changelog, Restored
from tailrace.feedback.label_counts import LabelCounts
from tailrace.feedback.label_join import LabelJoin


class LabelState(LabelJoin):
    """State of one label whose join and counts are in one process, on one table.

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
        super().__init__(spec, restored, watermark_ms)
        self.counts = LabelCounts(self.table, self.sources, kept_ms, counted)
        self._join.closed.told = self.counts.packed
        self.counts.left_out = self._join.closed.leave_out
        # The watch over sources looks at single labels, of whatever age.
        self._packs = self._packs and self.sources is None
        if restored is not None:
            self.counts.restore(restored.windows)

    @property
    def windows(self) -> QualityWindows:
        """Live quality by this label."""
        return self.counts.windows

    @property
    def source_names(self) -> list[str]:
        """Names of sources by code; none where outcomes name no source."""
        return self.counts.source_names

    def predict(self, arrivals: Arrivals) -> Changes:
        """Takes predictions."""
        changes = super().predict(arrivals)
        self.counts.predicted(self.added)
        return self._count(changes)

    def observe(self, reports: Reports) -> Changes:
        """Takes outcomes."""
        return self._count(super().observe(reports))

    def advance(self, watermark_ms: int) -> Changes:
        """Moves stream time."""
        return self._count(super().advance(watermark_ms))

    def forget(self, now_ms: int) -> None:
        """Forgets what can no longer change, and windows that nobody looks back at."""
        super().forget(now_ms)
        self.counts.forget(now_ms)

    def store(self, changelog: Changelog) -> list[Output]:
        """What the changelog has to be told since the last call; frees what is gone."""
        return super().store(changelog) + self.counts.store(changelog)

    def set_aside(self, spans: Sequence[Quarantined], lost: Sequence[Span] = ()) -> None:
        """Takes labels out of the windows; see `LabelCounts`."""
        self.counts.set_aside(spans, lost)

    def _count(self, changes: Changes) -> Changes:
        self.counts.changed(changes)
        return changes

    def _done(self, added: Rows, touched: Rows, gone: Rows) -> None:
        self.counts.leaving(gone)
