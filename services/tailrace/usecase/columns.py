"""Turns the features of a declaration into columns and window views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

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
    columns = Columns()
    views: dict[tuple[Literal["events", "labels"], str], WindowView] = {}
    for position, feature in enumerate(features):
        place = f"features[{position}]"
        if isinstance(feature, WindowFeatures):
            view = _view(name, place, feature, requests, label, columns, findings)
            if view is not None:
                _merge(place, views, view, findings)
        elif isinstance(feature, RequestFeature):
            columns.request.extend(_request(place, feature, requests, columns, findings))
        else:
            findings.add(place, f"{feature!r} is no feature; unpack groups with *GroupBy(...).aggregate(...)")
    columns.views = sorted(views.values(), key=lambda view: view.source)
    names = [c.name for c in columns.request] + [c.name for v in columns.views for c in v.columns]
    for column, times in Counter(names).items():
        if times > 1:
            findings.add("features", f"column {column!r} is declared {times} times; keep one")
    if not names and not findings.sentences:
        findings.add("features", "a model needs at least one column")
    return columns


def _request(
    place: str, feature: RequestFeature, requests: Topic, columns: Columns, findings: Findings
) -> list[RequestColumn]:
    match feature:
        case HourOfDay():
            return [RequestColumn(name="hour_of_day", kind="hour_of_day")]
        case DayOfWeek():
            return [RequestColumn(name="day_of_week", kind="day_of_week")]
        case IsWeekend():
            return [RequestColumn(name="is_weekend", kind="is_weekend")]
        case IsNight(until):
            if not 0 <= until <= 23:
                findings.add(f"{place} IsNight({until!r})", "until must be an hour from 0 to 23")
            return [RequestColumn(name="is_night", kind="is_night", until_hour=until)]
        case Field(name):
            usable = _payload(f'{place} Field("{name}")', name, NUMBERS, requests, columns, findings)
            return [RequestColumn(name=name, kind="field", field=name)] if usable else []
        case OneHot(name):
            place = f'{place} OneHot("{name}")'
            found = _payload(place, name, ("str",), requests, columns, findings)
            if found and not found.categories:
                findings.add(place, "needs a Literal of strings; use Category for other strings")
            return [
                RequestColumn(name=f"{name}={value}", kind="one_hot", field=name, categories=(value,))
                for value in (found.categories if found else ())
            ]
        case Category(name, buckets):
            place = f'{place} Category("{name}")'
            found = _payload(place, name, ("str",), requests, columns, findings)
            if buckets < 1:
                findings.add(place, f"buckets={buckets!r} must be greater than 0")
            categories = found.categories if found else ()
            hashed = 0 if categories else buckets
            return [RequestColumn(name=name, kind="category", field=name, categories=categories, buckets=hashed)]


def _view(
    name: str,
    place: str,
    group: WindowFeatures,
    requests: Topic,
    label: Label,
    columns: Columns,
    findings: Findings,
) -> WindowView | None:
    place = f'{place} GroupBy(by="{group.by}")'
    source = _source(place, group, requests, label, columns, findings)
    if source is None:
        return None
    spans = {text.replace(" ", ""): findings.duration(f"{place} windows", text) for text in group.windows}
    if not spans and any(not isinstance(a, SinceLast) for a in group.aggregates):
        findings.add(f"{place} windows", 'name at least one span, such as windows=["1h"]')
    if not group.aggregates:
        findings.add(place, "aggregate() needs at least one aggregate, such as Count()")
    fresh = None
    if group.fresh_within is not None:
        fresh = findings.duration(f"{place} fresh_within", group.fresh_within)
        if source == "events":
            findings.add(f"{place} fresh_within", "has no effect: windows of the event's own key are exact; remove it")
    compiled: list[WindowColumn] = []
    for aggregate in group.aggregates:
        compiled.extend(_windows(place, group, source, aggregate, spans, requests, label, columns, findings))
    return WindowView(
        name=f"{name}_{group.by}_{source}",
        source=source,
        entity=group.by,
        columns=tuple(compiled),
        fresh_within_ms=fresh,
    )


def _source(
    place: str, group: WindowFeatures, requests: Topic, label: Label, columns: Columns, findings: Findings
) -> Literal["events", "labels"] | None:
    if group.source is requests:
        found = _payload(f"{place} by", group.by, IDENTITIES, requests, columns, findings)
        if found and group.by != requests.key:
            findings.add(
                f"{place} by",
                f"events are windowed by the key of their topic, {requests.key!r}; other keys are not supported yet: "
                f"group the label by {group.by!r}, or key the topic by it in a use case of its own",
            )
            return None
        return "events" if found else None
    if isinstance(group.source, Label) and group.source == label:
        found = _payload(f"{place} by", group.by, IDENTITIES, requests, columns, findings)
        if found and found.optional:
            findings.add(f"{place} by", f"{group.by!r} becomes an entity and must always be there; take '| None' off")
        return "labels" if found else None
    findings.add(place, f"{group.source!r} is neither the requests topic nor the label of this use case")
    return None


def _windows(
    place: str,
    group: WindowFeatures,
    source: Literal["events", "labels"],
    aggregate: Aggregate,
    spans: dict[str, int],
    requests: Topic,
    label: Label,
    columns: Columns,
    findings: Findings,
) -> list[WindowColumn]:
    kind = KINDS[type(aggregate)]
    column = getattr(aggregate, "column", "")
    written = f"{place} {type(aggregate).__name__}({column and repr(column)})"
    if source == "labels":
        if not isinstance(aggregate, _OF_LABELS):
            findings.add(written, "labels can be revised; only Count, Sum and Mean of them are supported")
            return []
        if column and not findings.known(written, column, [label.value], what="value of the label"):
            return []
        column = LABEL_FIELD if column else ""
    elif column:
        kinds: tuple[FieldKind, ...] = ("str", *NUMBERS) if kind == "distinct" else NUMBERS
        if not _payload(written, column, kinds, requests, columns, findings):
            return []
    if kind == "since_last":
        return [WindowColumn(name=f"{group.by}_since_last", kind=kind)]
    stem = f"{group.by}_{kind}_{column}" if column else f"{group.by}_{kind}"
    return [WindowColumn(name=f"{stem}_{text}", kind=kind, field=column, span_ms=span) for text, span in spans.items()]


def _payload(
    place: str, name: str, kinds: tuple[FieldKind, ...], requests: Topic, columns: Columns, findings: Findings
) -> FieldType | None:
    found = findings.column(place, requests.schema, name, kinds)
    if found is not None:
        columns.field_types[name] = found.kind
    return found


def _merge(
    place: str, views: dict[tuple[Literal["events", "labels"], str], WindowView], view: WindowView, findings: Findings
) -> None:
    earlier = views.get((view.source, view.entity))
    if earlier is None:
        views[view.source, view.entity] = view
        return
    if earlier.fresh_within_ms != view.fresh_within_ms:
        findings.add(
            f'{place} GroupBy(by="{view.entity}") fresh_within',
            "groups of one source and key share a row and need the same fresh_within",
        )
    views[view.source, view.entity] = WindowView(
        name=view.name,
        source=view.source,
        entity=view.entity,
        columns=earlier.columns + view.columns,
        fresh_within_ms=view.fresh_within_ms,
    )
