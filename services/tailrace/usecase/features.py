"""The words in which features are declared. The compiler turns them into a `Plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tailrace.usecase.sources import Label, Topic


@dataclass(frozen=True)
class Field:
    """A numeric or boolean field of the request, as it stands."""

    name: str


@dataclass(frozen=True)
class OneHot:
    """One 0/1 column per value of a `Literal` field."""

    name: str


@dataclass(frozen=True)
class Category:
    """A category as an integer code, for models with embeddings.

    A `Literal` field is coded by position; a string field by a stable hash into `buckets`.
    """

    name: str
    buckets: int = 256


@dataclass(frozen=True)
class HourOfDay:
    """Hour of the event time, UTC, 0 to 23."""


@dataclass(frozen=True)
class DayOfWeek:
    """Day of the week of the event time, UTC, Monday is 0."""


@dataclass(frozen=True)
class IsWeekend:
    """1 on Saturday and Sunday, UTC."""


@dataclass(frozen=True)
class IsNight:
    """1 while the hour, UTC, is at most `until`."""

    until: int = 6


RequestFeature = Field | OneHot | Category | HourOfDay | DayOfWeek | IsWeekend | IsNight


@dataclass(frozen=True)
class Count:
    """Number of events in the window, the present one included."""


@dataclass(frozen=True)
class Sum:
    """Sum of a column over the window; 0 when it is empty."""

    column: str


@dataclass(frozen=True)
class Mean:
    """Mean of a column over the window; 0 when it is empty."""

    column: str


@dataclass(frozen=True)
class Std:
    """Sample standard deviation (n - 1) over the window; 0 with fewer than two values."""

    column: str


@dataclass(frozen=True)
class Min:
    """Smallest value in the window; NaN when it is empty."""

    column: str


@dataclass(frozen=True)
class Max:
    """Largest value in the window; NaN when it is empty."""

    column: str


@dataclass(frozen=True)
class DistinctCount:
    """Number of different values of a column in the window."""

    column: str


@dataclass(frozen=True)
class SinceLast:
    """Seconds since the key's previous event; NaN when there is none, or it was forgotten. Takes no window.

    A key is forgotten when it is silent for as long as an event may be late and the longest window of its group.
    """


Aggregate = Count | Sum | Mean | Std | Min | Max | DistinctCount | SinceLast


@dataclass(frozen=True)
class WindowFeatures:
    """A group of aggregates over sliding windows of one key, as `GroupBy(...).aggregate(...)` makes it."""

    source: Topic | Label
    by: str
    windows: tuple[str, ...]
    fresh_within: str | None
    aggregates: tuple[Aggregate, ...]


class GroupBy:
    """Groups a source by a column for sliding windows (t - span, t].

    Args:
        source: The requests topic, or a label for features made from labels.
        by: Column to group by. For the requests topic it must be the topic's key.
        windows: Spans, such as ["10m", "1h", "7d"].
        fresh_within: Rows without an update for longer than this are replaced by defaults and the
            prediction is marked degraded. None: any age is good, and no row means empty windows.

    Example:
        `*GroupBy(transactions, by="card_id", windows=["1h"]).aggregate(Count(), Sum("amount_eur"))`
    """

    def __init__(
        self, source: Topic | Label, *, by: str, windows: Sequence[str], fresh_within: str | None = None
    ) -> None:
        self.source = source
        self.by = by
        self.windows = tuple(windows)
        self.fresh_within = fresh_within

    def aggregate(self, *aggregates: Aggregate) -> list[WindowFeatures]:
        """Declares the aggregates; unpack the result into `features=[...]`."""
        return [WindowFeatures(self.source, self.by, self.windows, self.fresh_within, aggregates)]


Feature = RequestFeature | WindowFeatures
