"""The serving plan: what a use case's declaration compiles to, and what is stored with every model.

A plan is plain data: services, trainer and model bundle read it, nothing in it needs the
declaration's module. Its fingerprint is a hash of all that decides the meaning of a feature vector.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

AggregateKind = Literal["count", "sum", "mean", "std", "min", "max", "distinct", "since_last"]


class RequestColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column computed from the event alone.

    `categories` holds the values of a `Literal` field: for `one_hot` the single value of this
    column, for `category` all of them in order (empty: hashed into `buckets`).
    """

    name: str
    kind: Literal["field", "one_hot", "category", "hour_of_day", "day_of_week", "is_weekend", "is_night"]
    field: str = ""
    categories: tuple[str, ...] = ()
    buckets: int = 0
    until_hour: int = 0


class WindowColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One aggregate over one span (t - span, t]. `field` is "" for count and since_last."""

    name: str
    kind: AggregateKind
    field: str = ""
    span_ms: int = 0


class WindowView(msgspec.Struct, frozen=True, kw_only=True):
    """Windows of one key, one row per key in the online store (a Feast feature view of this name).

    `source` "events": kept by the key of the requests topic and served inside FEATURES, exact as of
    each event. `source` "labels": fed from LABELS (an entry per known label, at `known_at_ms`; its
    `field` is "label"), stored with its ring of entries, and evaluated by the reader as of the
    event it scores.
    """

    name: str
    source: Literal["events", "labels"]
    entity: str
    columns: tuple[WindowColumn, ...]
    fresh_within_ms: int | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Distinct payload columns the aggregates need, in order of first use."""
        return tuple(dict.fromkeys(c.field for c in self.columns if c.field))

    @property
    def longest_span_ms(self) -> int:
        """How long an entry can matter."""
        return max((c.span_ms for c in self.columns), default=0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Feature computation and serving of one use case.

    `order` is the column order of every feature vector: request columns, then each view's columns.
    `own_order` is the part of it that FEATURES carries (request columns and event views); the rest,
    `online_order`, is read from the online store by inference.
    `field_types` maps each payload field used to "bool" | "int" | "float" | "str". Where numbers are predicted, they
    lie between `low` and `high`, and `quantile` says which of their distribution, None for its mean; `threshold` and
    `default_score` are such numbers then. `amount` names the column with the money at stake, "" for none.
    """

    use_case: str
    version: int
    key: str
    event_time: str
    event_id: str
    entities: tuple[str, ...]
    slices: tuple[str, ...]
    request: tuple[RequestColumn, ...]
    views: tuple[WindowView, ...]
    field_types: dict[str, str]
    threshold: float
    default_score: float
    latency_budget_ms: int
    task: Literal["binary", "regression"] = "binary"
    low: float = 0.0
    high: float = 1.0
    quantile: float | None = None
    amount: str = ""

    @property
    def event_views(self) -> tuple[WindowView, ...]:
        """Views computed from the requests, served inside FEATURES."""
        return tuple(v for v in self.views if v.source == "events")

    @property
    def online_views(self) -> tuple[WindowView, ...]:
        """Views read from the online store when scoring."""
        return tuple(v for v in self.views if v.source == "labels")

    @property
    def own_order(self) -> tuple[str, ...]:
        """Names of the columns in `FeatureRow.values`."""
        return tuple(c.name for c in self.request) + tuple(c.name for v in self.event_views for c in v.columns)

    @property
    def online_order(self) -> tuple[str, ...]:
        """Names of the columns that inference adds."""
        return tuple(c.name for v in self.online_views for c in v.columns)

    @property
    def order(self) -> tuple[str, ...]:
        """Names of all columns of a feature vector, `own_order` then `online_order`."""
        return self.own_order + self.online_order

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that decides what a feature vector means."""
        meaning = (self.use_case, self.key, self.event_time, self.request, self.views, self.field_types)
        return hashlib.sha256(msgspec.json.encode(meaning, order="sorted")).hexdigest()[:16]
