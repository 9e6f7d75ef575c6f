"""Compiles a declaration into the plan that services, trainer and bundles read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace.core.plan import Plan
from tailrace.errors import UseCaseError
from tailrace.usecase.checks import check_amount, check_model, check_monitor, check_policies, check_sources
from tailrace.usecase.columns import compile_columns
from tailrace.usecase.findings import Findings, field_type
from tailrace.usecase.label_checks import check_labels, check_parallel
from tailrace.usecase.policies import Binary, Model
from tailrace.usecase.sources import fields_of

if TYPE_CHECKING:
    from tailrace.usecase.declaration import UseCase


def compile_plan(use_case: UseCase) -> Plan:
    """Checks a declaration as a whole and compiles its features.

    Returns:
        The plan. Columns are named after what they hold: request columns `amount_eur`, `channel=web`,
        `hour_of_day`; windows `{by}_{kind}_{field}_{span}` such as `card_id_sum_amount_eur_1h`; views
        `{use_case}_{entity}_events` and `{use_case}_{entity}_labels`, one per source and entity.

    Raises:
        UseCaseError: lists every problem, each with its place and the nearest valid name.
    """
    findings = Findings()
    check_sources(use_case, findings)
    check_labels(use_case, findings)
    check_parallel(use_case, findings)
    columns = compile_columns(use_case.name, use_case.features, use_case.requests, use_case.label, findings)
    latency_budget_ms = check_model(use_case, findings)
    check_monitor(use_case, findings)
    check_policies(use_case, findings)
    check_amount(use_case, [column.name for column in columns.request if column.kind == "field"], findings)
    if findings.sentences:
        raise UseCaseError(use_case.name, findings.sentences)
    key = use_case.requests.key
    fields = fields_of(use_case.requests.schema)
    judged = [label.entity for label in use_case.labels if label.entity is not None]
    entities = tuple(dict.fromkeys((key, *(view.entity for view in columns.views), *judged)))
    used = (
        *columns.field_types,
        key,
        use_case.requests.event_time,
        use_case.prediction_id,
        *use_case.slices,
        *entities,
    )
    return Plan(
        use_case=use_case.name,
        version=use_case.version,
        key=key,
        event_time=use_case.requests.event_time,
        event_id=use_case.prediction_id,
        entities=entities,
        slices=use_case.slices,
        request=tuple(columns.request),
        views=tuple(columns.views),
        field_types={name: field_type(fields[name]).kind for name in fields if name in used},
        latency_budget_ms=latency_budget_ms,
        amount=use_case.amount,
        **_of_model(use_case.model),
    )


def _of_model(model: Model) -> dict[str, Any]:
    """What the plan says of the model's scores."""
    if isinstance(model, Binary):
        return {"threshold": model.threshold, "default_score": model.on_failure.score}
    return {
        "task": "regression",
        "low": model.low,
        "high": model.high,
        "quantile": model.quantile,
        "threshold": model.high if model.threshold is None else model.threshold,
        "default_score": model.low if model.on_failure is None else model.on_failure.score,
    }
