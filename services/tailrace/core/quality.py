"""Live quality by day of event time, variant, version and slice, as integer counts that can be taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from tailrace.contracts.records import Quality
from tailrace.core.joins import EventState, Scored
from tailrace.core.metrics import ScoreHistogram
from tailrace.core.scoring import bin_of_score

DAY_MS = 86_400_000


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
    """Counts of one window as they are stored."""

    predictions: int = 0
    paired: int = 0
    disagreements: int = 0
    bins: list[int] = []
    n: list[int] = []
    positives: list[int] = []


class _Window:
    __slots__ = ("disagreements", "histogram", "paired", "predictions")

    def __init__(self) -> None:
        self.predictions = 0
        self.paired = 0
        self.disagreements = 0
        self.histogram = ScoreHistogram()


class QualityWindows:
    """Counts of every window. Adding and taking back commute, so the order of arrival cannot matter.

    Attributes:
        changed: Windows that changed since the caller last cleared it.
    """

    def __init__(self) -> None:
        self._windows: dict[WindowKey, _Window] = {}
        self.changed: set[WindowKey] = set()

    def predicted(self, prediction: Scored) -> None:
        """Counts a prediction."""
        for key in _keys(prediction):
            self._at(key).predictions += 1

    def paired(self, shadow: Scored, *, agrees: bool) -> None:
        """Counts an event that both a shadow and a model with traffic scored."""
        for key in _keys(shadow):
            window = self._at(key)
            window.paired += 1
            window.disagreements += not agrees

    def labelled(self, prediction: Scored, label: float, times: int = 1) -> None:
        """Counts a final label, or takes it back with `times` -1."""
        position = bin_of_score(prediction.score)
        for key in _keys(prediction):
            self._at(key).histogram.add(position, positive=label > 0.0, times=times)

    def add_event(self, state: EventState) -> None:
        """Counts all that is kept of an event, as the calls above have done one by one."""
        pairs(self, [judged.prediction for judged in state.judged])
        for judged in state.judged:
            self.predicted(judged.prediction)
            if judged.final is not None:
                self.labelled(judged.prediction, judged.final)

    def __iter__(self) -> Iterator[WindowKey]:
        return iter(self._windows)

    def drop_before(self, start_ms: int) -> list[WindowKey]:
        """Forgets windows that start earlier."""
        old = [key for key in self._windows if key.start_ms < start_ms]
        for key in old:
            del self._windows[key]
            self.changed.discard(key)
        return old

    def counts(self, key: WindowKey) -> WindowCounts:
        """Counts of one window, to be stored."""
        window = self._windows[key]
        bins, n, positives = window.histogram.sparse()
        return WindowCounts(window.predictions, window.paired, window.disagreements, bins, n, positives)

    def restore(self, key: WindowKey, counts: WindowCounts) -> None:
        """Adds stored counts."""
        window = self._at(key)
        window.predictions += counts.predictions
        window.paired += counts.paired
        window.disagreements += counts.disagreements
        window.histogram.add_sparse(counts.bins, counts.n, counts.positives)

    def final(self, key: WindowKey) -> int:
        """Final labels in a window."""
        return self._windows[key].histogram.labelled

    def maturity(self, key: WindowKey) -> float:
        """Share of a window's predictions whose label is final, in [0, 1]."""
        window = self._windows[key]
        return window.histogram.labelled / window.predictions if window.predictions else 0.0

    def metrics(self, keys: Iterable[WindowKey], threshold: float) -> dict[str, float | None]:
        """Metrics over several windows together."""
        total = ScoreHistogram()
        for key in keys:
            total.add_sparse(*self._windows[key].histogram.sparse())
        return total.metrics(threshold=threshold)

    def record(self, key: WindowKey, *, use_case: str, label_name: str, threshold: float, watermark_ms: int) -> Quality:
        """What QUALITY says of a window."""
        window = self._windows[key]
        bins, n, positives = window.histogram.sparse()
        return Quality(
            use_case=use_case,
            label_name=label_name,
            window_start_ms=key.start_ms,
            window_end_ms=key.start_ms + DAY_MS,
            variant=key.variant,
            model_version=key.model_version,
            slice=key.slice,
            predictions=window.predictions,
            labelled=window.histogram.labelled,
            final=window.histogram.labelled,
            maturity=self.maturity(key),
            bins=bins,
            n=n,
            positives=positives,
            metrics=window.histogram.metrics(threshold=threshold) | {"threshold": threshold},
            watermark_ms=watermark_ms,
            paired=window.paired,
            disagreements=window.disagreements,
        )

    def _at(self, key: WindowKey) -> _Window:
        self.changed.add(key)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
        return window


def pairs(windows: QualityWindows, predictions: list[Scored], newest: int = 0) -> None:
    """Counts the pairs of shadow and traffic among the predictions of one event.

    Args:
        windows: Where to count.
        predictions: All of the event, in order of arrival.
        newest: Position of the first that is new: only pairs with a new one are counted.
    """
    for at, shadow in enumerate(predictions):
        if shadow.variant != "shadow":
            continue
        for other, traffic in enumerate(predictions):
            if traffic.variant != "shadow" and max(at, other) >= newest:
                windows.paired(shadow, agrees=shadow.decision == traffic.decision)


def _keys(prediction: Scored) -> list[WindowKey]:
    start_ms = prediction.event_time_ms - prediction.event_time_ms % DAY_MS
    variant, version = prediction.variant, prediction.model_version
    slices = [f"{column}={value}" for column, value in prediction.slices.items()]
    return [WindowKey(start_ms, variant, version, part) for part in ("", *slices)]
