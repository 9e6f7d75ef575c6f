"""What a use case declares of joins, windows and monitoring, in plain numbers."""

from __future__ import annotations

from tailrace.core.durations import milliseconds
from tailrace.core.joins import JoinSpec
from tailrace.core.monitor_state import MonitorSpec
from tailrace.core.monitors import PSI, TopPrecision
from tailrace.core.quality import DAY_MS
from tailrace.core.readings import ReadingSpec
from tailrace.core.retraining import RetrainSpec
from tailrace.core.window_spec import PLAIN, WindowSpec, grid_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sources import Label

ORPHAN_HOLD_MS = DAY_MS
"""How long an outcome waits for its prediction. Predictions lag events by seconds; a day survives an outage."""


def counted_of(use_case: UseCase, label: Label) -> WindowSpec:
    """What the windows of a label hold; those of auxiliary labels hold scores alone."""
    if label is not use_case.label:
        return PLAIN
    top = next((metric for metric in use_case.metrics if isinstance(metric, TopPrecision)), None)
    return WindowSpec(
        grid=grid_of(use_case.plan),
        weighted=bool(use_case.plan.amount),
        top=top.k if top is not None else 0,
        distinct=top is not None and top.distinct,
    )


def join_spec(label: Label) -> JoinSpec:
    """The join of a label in plain numbers."""
    return JoinSpec(
        window_ms=milliseconds(label.matures_after),
        lateness_ms=milliseconds(label.topic.lateness),
        correction_ms=milliseconds(label.corrected_within),
        hold_ms=ORPHAN_HOLD_MS,
        if_absent=label.if_absent,
        closes_at_outcome=label.closes == "outcome",
        reduce=label.reduce,
        entity=label.entity,
        attribution=label.attribution,
        trust=(label.trust or {}) if label.source is not None else None,
    )


def reading_spec(use_case: UseCase) -> ReadingSpec:
    """How the labels of a use case come, in plain numbers."""
    spec = join_spec(use_case.label)
    return ReadingSpec(spec.window_ms, spec.lateness_ms, spec.if_absent is not None, use_case.plan.threshold)


def monitor_spec(use_case: UseCase) -> MonitorSpec:
    """The monitoring of a use case in plain numbers."""
    policy = use_case.retrain
    every = [milliseconds(d.every) for d in use_case.detectors if isinstance(d, PSI)]
    return MonitorSpec(
        use_case=use_case.name,
        names=use_case.plan.order,
        threshold=use_case.plan.threshold,
        metrics=use_case.metrics,
        metric_windows_ms=tuple(milliseconds(metric.window) for metric in use_case.metrics),
        detectors=use_case.detectors,
        psi_every_ms=every[0] if every else 0,
        retrain=RetrainSpec(
            on=frozenset(policy.on),
            at_most_every_ms=milliseconds(policy.at_most_every),
            at_least_every_ms=milliseconds(policy.at_least_every) if policy.at_least_every else None,
            min_labels=policy.min_labels,
            window_ms=milliseconds(policy.window),
            every_labels=policy.every_labels,
            budget=policy.budget.trainings if policy.budget else None,
            budget_ms=milliseconds(policy.budget.per) if policy.budget else 0,
        ),
        training_window_ms=milliseconds(policy.window),
        decides=use_case.plan.task == "binary",
        attribution_ms=milliseconds(use_case.label.matures_after),
    )


def horizon_ms(label: Label) -> int:
    """From a prediction's event to the end of its corrections, milliseconds."""
    spec = join_spec(label)
    return spec.window_ms + spec.lateness_ms + spec.correction_ms


def kept_ms(use_case: UseCase, label: Label) -> int:
    """How long windows are kept: corrections, the longest metric and the training span all look back at them."""
    longest = max((milliseconds(metric.window) for metric in use_case.metrics), default=0)
    return horizon_ms(label) + longest + milliseconds(use_case.retrain.window) + 2 * DAY_MS
