"""Sources whose labels are not to be trusted: told from honest drift, because that befalls all sources alike.

Hour by hour of event time, once the labels have come, each source is held against the others that are at least as
trusted, on what they say of predictions of the same hour and score. One that contradicts the score more often than
others do, by more than it always did and `MATERIAL` besides, flips labels. Day by day its outcomes are counted, and
their delays held against those it had before, beyond what others' delays do. The bets are those of `core.source_bets`:
of all sources and subjects together one is suspected without cause in `RUN_LENGTH` hours at most, as long as hours are
independent given what is usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.retraining import Quarantined
from tailrace.core.label_delay import CELLS, bin_of_delay, cell_of
from tailrace.core.outcome_sources import NOBODY, SourceBook
from tailrace.core.sampling import HOUR_MS
from tailrace.core.source_bets import RECOVERED_AT, SHARES, Bets, Pairs, excess, log_e_values, pairs, recovered
from tailrace.core.source_days import DAY_MS, Day, close_day, timing_marks
from tailrace.core.source_state import LEAST_PAIRS, MATERIAL, LabelSourcesData, SourceState, Standing

RUN_LENGTH = 10_000.0
"""More than a year of hours."""
ALPHA = 0.05
"""Most of the honest rises of the loss that are laid to a source: it is set aside, and the detectors begin anew. A lie
that is missed is learned, so that this may be more than other errors are."""
KEPT = 0.99
"""Part of what is known of the scores that an hour hands on to the next."""
COARSE = 4
"""Cells of the score in one: a unit of log-odds."""
SIZE = (CELLS - 1) // COARSE + 1
MOST_SPANS = 100
"""Quarantines that are remembered."""

Subject = Literal["flips", "volume", "sooner", "later"]
SUBJECTS: Final[tuple[Subject, ...]] = ("flips", "volume", "sooner", "later")


class LabelBlock(NamedTuple):
    """Final labels of the traffic's events of an hour, in order of their event time; n each.

    `times_ms` int64, of their events; `scores` float64, `positive` bool, `source` uint8 codes, `delay_ms` int64 from event to outcome. Labels that no
    source gave are left out; `predictions` counts all of the hour.
    """

    start_ms: int
    end_ms: int
    times_ms: NDArray[np.int64]
    scores: NDArray[np.float64]
    positive: NDArray[np.bool_]
    source: NDArray[np.uint8]
    delay_ms: NDArray[np.int64]
    predictions: int


class SourceFinding(NamedTuple):
    """A source stands out, or no longer does.

    `value` is the share of its labels that it flips, its outcomes per prediction, or the share that comes sooner or
    later than its own did, beyond what is so with others; `limit` what is allowed.
    """

    source: str
    subject: Subject
    since_ms: int
    found_ms: int
    value: float
    limit: float
    resolved: bool = False


class LabelSources:
    """State of the watch over the sources of one label. Hours are judged in order, each once.

    Args:
        data: Where to begin.
    """

    def __init__(self, data: LabelSourcesData | None = None) -> None:
        self.data = data or LabelSourcesData()

    @property
    def quarantined(self) -> list[Quarantined]:
        """Labels that are not to be used, the oldest first."""
        return self.data.spans

    @property
    def standing(self) -> Iterator[SourceFinding]:
        """What is held against sources now."""
        for name, state in sorted(self.data.sources.items()):
            for subject in SUBJECTS:
                if (at := state.standing.get(subject)) is not None:
                    yield SourceFinding(name, subject, at.since_ms, at.since_ms, at.value, at.limit)

    def judge(self, block: LabelBlock, book: SourceBook) -> list[SourceFinding]:
        """Judges an hour; its labels are known by then."""
        data = self.data
        found: list[SourceFinding] = []
        day = (data.judged_ms - 1) // DAY_MS
        if data.judged_ms >= 0 and day != block.start_ms // DAY_MS:
            found += self._close_day(day * DAY_MS, block.start_ms)
        data.judged_ms = block.end_ms
        codes = [code for code in np.unique(block.source).tolist() if code != NOBODY]
        for code in codes:
            data.sources.setdefault(book.names[code], SourceState())
        suspected = np.array([self._is_suspected(name) for name in book.names])
        cell, usual, marks = self._marks(block)
        self._learn_scores(block, cell, ~suspected[block.source])
        for code in codes:
            other = _comparable(block.source, code, book, suspected)
            if other.any():
                own = block.source == code
                compared = pairs(marks[own], cell[own], marks[other], cell[other], usual)
                found += self._flips(book.names[code], compared, block)
        self._count_day(block, book, codes, suspected)
        return found

    def accuse(self, block: LabelBlock, book: SourceBook, looks: int = 1) -> list[SourceFinding]:
        """Which sources explain a rise of the loss that has been found.

        A few looks, from a change that is known or may be: the normal law of the mean difference will do, and with
        fewer labels than the bets need. Labels here need not be complete, and are not learned from.

        Args:
            block: Labels of events since the change, whatever hour they are of.
            book: Sources by code.
            looks: From how many changes on it is looked.
        """
        found = []
        suspected = np.array([self._is_suspected(name) for name in book.names])
        cell, usual, marks = self._marks(block)
        hour = (block.times_ms - block.start_ms) // HOUR_MS
        stratum, usual = hour * len(usual) + cell, np.tile(usual, int(hour.max(initial=0)) + 1)
        alpha = ALPHA / (looks * max(len(self.data.sources), 1))
        for name, state in sorted(self.data.sources.items()):
            code = book.names.index(name)
            own, other = block.source == code, _comparable(block.source, code, book, suspected)
            compared = pairs(marks[own], stratum[own], marks[other], stratum[other], usual)
            value, p_value = excess(compared, state.usual)
            if not suspected[code] and value - state.usual > MATERIAL and p_value < alpha:
                statistic, since_ms, _ = state.flips.likeliest()
                since_ms = min(since_ms, block.start_ms) if statistic > 1.0 else block.start_ms
                found.append(self._suspect(name, "flips", since_ms, block.end_ms, value, state.usual + MATERIAL))
        return found

    def _marks(self, block: LabelBlock) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Cell of each label, the share that usually contradicts its score by cell, and which labels do."""
        data, size = self.data, SIZE
        cell = cell_of(block.scores).astype(np.int64) // COARSE
        labels = np.array(data.labels or [0.0] * size)
        positives = np.array(data.positives or [0.0] * size)
        here = np.bincount(cell, minlength=size)
        score = np.bincount(cell, block.scores, size) / np.maximum(here, 1)
        rate = (positives + 2.0 * score) / (labels + 2.0)
        marks = block.positive ^ (rate >= 0.5)[cell]
        return cell, np.clip(np.minimum(rate, 1.0 - rate), 0.005, 0.5), marks

    def _learn_scores(self, block: LabelBlock, cell: NDArray[np.int64], trusted: NDArray[np.bool_]) -> None:
        data = self.data
        for name, which in (("labels", trusted), ("positives", trusted & block.positive)):
            before = np.array(getattr(data, name) or [0.0] * SIZE)
            setattr(data, name, (KEPT * before + np.bincount(cell[which], minlength=SIZE)).tolist())

    def _flips(self, name: str, compared: Pairs, block: LabelBlock) -> Iterator[SourceFinding]:
        if not len(compared.differences):
            return
        state = self.data.sources[name]
        standing = state.standing.get("flips")
        if standing is not None:
            standing.statistic = recovered(standing.statistic, compared, standing.limit, standing.value)
            if standing.statistic >= RECOVERED_AT:
                yield self._clear(name, "flips", block.end_ms)
            return
        if state.pairs >= LEAST_PAIRS:
            logs = log_e_values(compared, state.limit)
            state.flips.step(block.start_ms, logs, float(compared.differences.sum()), compared.room)
            _, since_ms, value = state.flips.likeliest()
            if state.flips.total >= self._alarm_at(len(SHARES)) and value > state.limit:
                yield self._suspect(name, "flips", since_ms, block.end_ms, value, state.limit)
                return
        if not state.standing:
            state.learn(compared)

    def _count_day(self, block: LabelBlock, book: SourceBook, codes: list[int], suspected: NDArray[np.bool_]) -> None:
        """Takes an hour into its day."""
        days = self.data.days
        days.today.predictions += block.predictions
        days.today.outcomes += len(block.source)
        delay = bin_of_delay(np.maximum(block.delay_ms, 0))
        marks = timing_marks(days, delay, block.source, book.names)
        for code in codes:
            own, other = block.source == code, _comparable(block.source, code, book, suspected)
            days.take(book.names[code], delay[own], [mark.held(own, other) for mark in marks])

    def _close_day(self, start_ms: int, now_ms: int) -> Iterator[SourceFinding]:
        days = self.data.days
        known = {name: set(state.standing) for name, state in self.data.sources.items()}
        for verdict in close_day(days, start_ms, known, self._alarm_at(1)):
            if verdict.resolved:
                yield self._clear(verdict.source, verdict.subject, now_ms)
            else:
                yield self._suspect(
                    verdict.source, verdict.subject, verdict.since_ms, now_ms, verdict.value, verdict.limit
                )
        days.today = Day()

    def _suspect(
        self, name: str, subject: Subject, since_ms: int, now_ms: int, value: float, limit: float
    ) -> SourceFinding:
        state = self.data.sources[name]
        if not state.standing:
            self.data.spans = [*self.data.spans, Quarantined(source=name, since_ms=since_ms)][-MOST_SPANS:]
        state.standing[subject] = Standing(since_ms, value, limit)
        state.flips = Bets()
        return SourceFinding(name, subject, since_ms, now_ms, value, limit)

    def _clear(self, name: str, subject: Subject, now_ms: int) -> SourceFinding:
        state = self.data.sources[name]
        was = state.standing.pop(subject)
        if not state.standing:
            self.data.spans = [
                msgspec.structs.replace(span, until_ms=now_ms)
                if span.source == name and span.until_ms is None
                else span
                for span in self.data.spans
            ]
        return SourceFinding(name, subject, was.since_ms, now_ms, was.value, was.limit, resolved=True)

    def _is_suspected(self, name: str) -> bool:
        state = self.data.sources.get(name)
        return state is not None and bool(state.standing)

    def _alarm_at(self, alternatives: int) -> float:
        return RUN_LENGTH * alternatives * len(SUBJECTS) * max(len(self.data.sources), 1)


def _comparable(
    source: NDArray[np.uint8], code: int, book: SourceBook, suspected: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which labels, bool (n,), a source is held against: of others, at least as trusted, and not suspected."""
    fits = (book.tiers >= book.tiers[code]) & ~suspected
    fits[[NOBODY, code]] = False
    return np.asarray(fits[source])
