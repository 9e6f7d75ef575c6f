"""Turns the features of a declaration into columns and window views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from tailrace.core.plan import AggregateKind, RequestColumn, WindowColumn, WindowView
from tailrace.usecase.features import (
    Aggregate,
    Category,
    Count,
    DayOfWeek,
    DistinctCount,
    Feature,
    Field,
    HourOfDay,
    IsNight,
    IsWeekend,
    Max,
    Mean,
    Min,
    OneHot,
    RequestFeature,
    SinceLast,
    Std,
    Sum,
    WindowFeatures,
)
from tailrace.usecase.findings import IDENTITIES, NUMBERS, FieldKind, FieldType, Findings
from tailrace.usecase.sources import Label, Topic

ViewSource = Literal["events", "labels"]

LABEL_FIELD = "label"
"""Field of the columns of label views: the label as feedback publishes it, whatever the outcome calls it."""

KINDS: dict[type[Aggregate], AggregateKind] = {
    Count: "count",
    Sum: "sum",
    Mean: "mean",
    Std: "std",
    Min: "min",
    Max: "max",
    DistinctCount: "distinct",
    SinceLast: "since_last",
}
_OF_LABELS = (Count, Sum, Mean)
"""A revision of a label adds an entry of count 0 with the difference; only these stay right under it."""


@dataclass
class Columns:
    """What the features compile to; `field_types` holds the payload fields they use."""

    request: list[RequestColumn] = field(default_factory=list)
    views: list[WindowView] = field(default_factory=list)
    field_types: dict[str, str] = field(default_factory=dict)


def compile_columns(
    name: str, features: Iterable[Feature], requests: Topic, label: Label, findings: Findings
) -> Columns:
    """Compiles all features; problems go to `findings` and their columns are left out.

    Several groups of the same source and key become one view, so an entity has one row per source.
    """
    compilation = _Compilation(name, requests, label, findings)
    columns = compilation.columns
    for position, feature in enumerate(features):
        place = f"features[{position}]"
        if isinstance(feature, WindowFeatures):
            view = compilation.view(place, feature)
            if view is not None:
                compilation.merge(place, view)
        elif isinstance(feature, RequestFeature):
            columns.request.extend(compilation.request(place, feature))
        else:
            findings.add(place, f"{feature!r} is no feature; unpack groups with *GroupBy(...).aggregate(...)")
    columns.views = sorted(compilation.views.values(), key=lambda view: view.source)
    names = [c.name for c in columns.request] + [c.name for v in columns.views for c in v.columns]
    for column, times in Counter(names).items():
        if times > 1:
            findings.add("features", f"column {column!r} is declared {times} times; keep one")
    if not names and not findings.sentences:
        findings.add("features", "a model needs at least one column")
    return columns


@dataclass
class _Compilation:
    """What every step of one compilation needs."""

    name: str
    requests: Topic
    label: Label
    findings: Findings
    columns: Columns = field(default_factory=Columns)
    views: dict[tuple[ViewSource, str], WindowView] = field(default_factory=dict)

    def request(self, place: str, feature: RequestFeature) -> list[RequestColumn]:
        """The columns of one feature of the event itself."""
        match feature:
            case HourOfDay():
                return [RequestColumn(name="hour_of_day", kind="hour_of_day")]
            case DayOfWeek():
                return [RequestColumn(name="day_of_week", kind="day_of_week")]
            case IsWeekend():
                return [RequestColumn(name="is_weekend", kind="is_weekend")]
            case IsNight(until):
                if not 0 <= until <= 23:
                    self.findings.add(f"{place} IsNight({until!r})", "until must be an hour from 0 to 23")
                return [RequestColumn(name="is_night", kind="is_night", until_hour=until)]
            case Field(name):
                usable = self.payload(f'{place} Field("{name}")', name, NUMBERS)
                return [RequestColumn(name=name, kind="field", field=name)] if usable else []
            case OneHot(name):
                place = f'{place} OneHot("{name}")'
                found = self.payload(place, name, ("str",))
                if found and not found.categories:
                    self.findings.add(place, "needs a Literal of strings; use Category for other strings")
                return [
                    RequestColumn(name=f"{name}={value}", kind="one_hot", field=name, categories=(value,))
                    for value in (found.categories if found else ())
                ]
            case Category(name, buckets):
                place = f'{place} Category("{name}")'
                found = self.payload(place, name, ("str",))
                if buckets < 1:
                    self.findings.add(place, f"buckets={buckets!r} must be greater than 0")
                categories = found.categories if found else ()
                hashed = 0 if categories else buckets
                return [RequestColumn(name=name, kind="category", field=name, categories=categories, buckets=hashed)]

    def view(self, place: str, group: WindowFeatures) -> WindowView | None:
        """The view of one group; None where its source or key cannot be used."""
        place = f'{place} GroupBy(by="{group.by}")'
        source = self.source(place, group)
        if source is None:
            return None
        spans = {text.replace(" ", ""): self.findings.duration(f"{place} windows", text) for text in group.windows}
        if not spans and any(not isinstance(a, SinceLast) for a in group.aggregates):
            self.findings.add(f"{place} windows", 'name at least one span, such as windows=["1h"]')
        if not group.aggregates:
            self.findings.add(place, "aggregate() needs at least one aggregate, such as Count()")
        fresh = None
        if group.fresh_within is not None:
            fresh = self.findings.duration(f"{place} fresh_within", group.fresh_within)
            if source == "events":
                self.findings.add(
                    f"{place} fresh_within", "has no effect: windows of the event's own key are exact; remove it"
                )
        compiled = [c for a in group.aggregates for c in self.windows(place, group.by, source, a, spans)]
        return WindowView(
            name=f"{self.name}_{group.by}_{source}",
            source=source,
            entity=group.by,
            columns=tuple(compiled),
            fresh_within_ms=fresh,
        )

    def source(self, place: str, group: WindowFeatures) -> ViewSource | None:
        """Which rows a group is computed from; None where they cannot be."""
        if group.source is self.requests:
            found = self.payload(f"{place} by", group.by, IDENTITIES)
            if found and group.by != self.requests.key:
                self.findings.add(
                    f"{place} by",
                    f"events are windowed by the key of their topic, {self.requests.key!r}; "
                    f"other keys are not supported yet: group the label by {group.by!r}, "
                    "or key the topic by it in a use case of its own",
                )
                return None
            return "events" if found else None
        if isinstance(group.source, Label) and group.source == self.label:
            found = self.payload(f"{place} by", group.by, IDENTITIES)
            if found and found.optional:
                self.findings.add(
                    f"{place} by", f"{group.by!r} becomes an entity and must always be there; take '| None' off"
                )
            return "labels" if found else None
        self.findings.add(
            place, f"{group.source!r} is neither the requests topic nor the label of this use case that judges models"
        )
        return None

    def windows(
        self, place: str, by: str, source: ViewSource, aggregate: Aggregate, spans: dict[str, int]
    ) -> list[WindowColumn]:
        """The columns of one aggregate, one per span."""
        kind = KINDS[type(aggregate)]
        column = getattr(aggregate, "column", "")
        written = f"{place} {type(aggregate).__name__}({column and repr(column)})"
        if source == "labels":
            if not isinstance(aggregate, _OF_LABELS):
                self.findings.add(written, "labels can be revised; only Count, Sum and Mean of them are supported")
                return []
            if column and not self.findings.known(written, column, [self.label.value], what="value of the label"):
                return []
            column = LABEL_FIELD if column else ""
        elif column:
            kinds: tuple[FieldKind, ...] = ("str", *NUMBERS) if kind == "distinct" else NUMBERS
            if not self.payload(written, column, kinds):
                return []
        if kind == "since_last":
            return [WindowColumn(name=f"{by}_since_last", kind=kind)]
        stem = f"{by}_{kind}_{column}" if column else f"{by}_{kind}"
        return [
            WindowColumn(name=f"{stem}_{text}", kind=kind, field=column, span_ms=span) for text, span in spans.items()
        ]

    def payload(self, place: str, name: str, kinds: tuple[FieldKind, ...]) -> FieldType | None:
        """Looks up a field of the requests and notes that features use it."""
        found = self.findings.column(place, self.requests.schema, name, kinds)
        if found is not None:
            self.columns.field_types[name] = found.kind
        return found

    def merge(self, place: str, view: WindowView) -> None:
        """Adds a view, or its columns to the view of the same source and entity."""
        earlier = self.views.get((view.source, view.entity))
        if earlier is None:
            self.views[view.source, view.entity] = view
            return
        if earlier.fresh_within_ms != view.fresh_within_ms:
            self.findings.add(
                f'{place} GroupBy(by="{view.entity}") fresh_within',
                "groups of one source and key share a row and need the same fresh_within",
            )
        merged = msgspec.structs.replace(view, columns=earlier.columns + view.columns)
        self.views[view.source, view.entity] = merged
