"""What must hold of sources, monitoring and policies before a service may start."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tailrace.contracts.topics import Topics
from tailrace.core.loss_detectors import LOSSES, LOSSES_OF_NUMBERS
from tailrace.core.monitors import NAMES, OF_NUMBERS, PSI, EDetector, TopPrecision
from tailrace.usecase.findings import IDENTITIES, Findings
from tailrace.usecase.policies import AtLeast, NotWorse, Regression, Shadow
from tailrace.usecase.sources import Topic

if TYPE_CHECKING:
    from tailrace.usecase.declaration import UseCase

TRAINERS = ("boosting", "torch")
MOST_TOP = 1_000
"""They stand by name in every record of a window."""
TRIGGERS = ("drift", "metric_drop")

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TRAINER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_sources(use_case: UseCase, findings: Findings) -> None:
    """Checks name, requests, prediction id and slices."""
    name, requests = use_case.name, use_case.requests
    if not (isinstance(name, str) and name.isascii() and name.isidentifier()):
        findings.add("name", f"{name!r} must be letters, digits and underscores, and begin with a letter")
    if use_case.version < 1:
        findings.add("version", f"{use_case.version!r} must be 1 or greater")
    check_topic("requests", requests, name, findings)
    findings.required("prediction_id", requests.schema, use_case.prediction_id, IDENTITIES)
    for column in use_case.slices:
        findings.column("slices", requests.schema, column, ("str", "int", "bool"))
    for column in sorted({c for c in use_case.slices if use_case.slices.count(c) > 1}):
        findings.add("slices", f"{column!r} is named twice")


def check_topic(place: str, topic: Topic, name: str, findings: Findings) -> None:
    """Checks one topic of a use case of this name."""
    if not _TOPIC_NAME.fullmatch(topic.name) or topic.name in (".", ".."):
        findings.add(place, f"{topic.name!r} is no Kafka topic name: letters, digits, '.', '_' and '-', at most 249")
    if topic.name in {spec.name for spec in Topics(name).owned()}:
        findings.add(place, f"{topic.name!r} is a topic Tailrace writes; use another")
    findings.required(f"{place} key", topic.schema, topic.key, IDENTITIES)
    findings.required(f"{place} event_time", topic.schema, topic.event_time, ("int",))
    findings.duration(f"{place} lateness", topic.lateness, zero=True)
    findings.duration(f"{place} max_ahead", topic.max_ahead)
    findings.duration(f"{place} max_behind", topic.max_behind)


def check_model(use_case: UseCase, findings: Findings) -> int:
    """Checks the model and returns its latency budget in milliseconds."""
    model = use_case.model
    if isinstance(model, Regression):
        _check_regression(use_case, model, findings)
    else:
        findings.share("model.threshold", model.threshold)
        findings.share("model.on_failure", model.on_failure.score)
    if not _TRAINER.fullmatch(model.train):
        findings.known("model.train", model.train, TRAINERS, what="trainer and no 'module:function'")
    return findings.duration("model.latency_budget", model.latency_budget)


def _check_regression(use_case: UseCase, model: Regression, findings: Findings) -> None:
    """Checks what is particular to predicted numbers."""
    if not (math.isfinite(model.low) and math.isfinite(model.high) and model.low < model.high):
        findings.add("model.low", f"{model.low!r} and model.high {model.high!r} must be numbers, the first the smaller")
        return
    named = {"threshold": model.threshold, "on_failure": model.on_failure.score if model.on_failure else None}
    for name, value in named.items():
        if value is not None and not model.low <= value <= model.high:
            findings.add(f"model.{name}", f"{value!r} must lie between low and high")
    if model.quantile is not None and not 0.0 < model.quantile < 1.0:
        findings.add("model.quantile", f"{model.quantile!r} must lie between 0 and 1")
    if model.train == "torch":
        findings.add("model.train", '"torch" predicts probabilities only; use "boosting", or a trainer of your own')
    if use_case.retrain.immature != "drop":
        findings.add("retrain.immature", 'must be "drop": numbers that are still to come are not made up for')
    if use_case.retrain.negative_sampling_rate != 1.0:
        findings.add("retrain.negative_sampling_rate", "must be 1: numbers are neither positives nor negatives")
    if use_case.auxiliary_labels:
        findings.add("auxiliary_labels", "are not counted where numbers are predicted; leave them out")


def _of_model(use_case: UseCase) -> tuple[list[str], tuple[str, ...]]:
    """Metrics, and losses of single predictions, that there are of the model's predictions."""
    if isinstance(use_case.model, Regression):
        return sorted(OF_NUMBERS), LOSSES_OF_NUMBERS
    return [name for name in NAMES.values() if name not in OF_NUMBERS], LOSSES


def check_monitor(use_case: UseCase, findings: Findings) -> None:
    """Checks metrics and detectors."""
    metrics, losses = _of_model(use_case)
    for metric in use_case.metrics:
        place = f"monitor {type(metric).__name__}"
        # Live windows are sums of stream-time days.
        findings.duration(f"{place} window", metric.window, whole="1d")
        findings.known(place, metric.name, metrics, what=f"metric of a {type(use_case.model).__name__}")
        if isinstance(metric, TopPrecision) and not 1 <= metric.k <= MOST_TOP:
            findings.add(f"{place} k", f"{metric.k!r} must be 1 to {MOST_TOP:,}")
        if metric.drop is not None and not metric.drop > 0:
            findings.add(f"{place} drop", f"{metric.drop!r} must be greater than 0")
    watched = [(metric.name, metric.window) for metric in use_case.metrics]
    tops = {(metric.k, metric.distinct) for metric in use_case.metrics if isinstance(metric, TopPrecision)}
    if len(tops) > 1:
        findings.add("monitor TopPrecision", "one k, of all or of distinct keys, is kept; let all name the same")
    for name, window in sorted({pair for pair in watched if watched.count(pair) > 1}):
        findings.add("monitor", f"{name} over {window} is named twice")
    for detector in use_case.detectors:
        place = f"monitor {type(detector).__name__}"
        if isinstance(detector, PSI):
            # Decisions fall at full hours of stream time.
            findings.duration(f"{place} every", detector.every, whole="1h")
            findings.share(f"{place} false_alarms", detector.false_alarms)
            if not detector.alarm >= 0:
                findings.add(f"{place} alarm", f"{detector.alarm!r} must be 0 or greater")
        else:
            findings.known(f"{place} metric", detector.metric, losses, what="loss of single predictions")
            if isinstance(detector, EDetector) and detector.run_length < 1:
                findings.add(f"{place} run_length", f"{detector.run_length!r} must be 1 or greater")


def check_amount(use_case: UseCase, fields: Sequence[str], findings: Findings) -> None:
    """Checks the money at stake; `fields` are features that are fields of the requests as they are."""
    if not use_case.amount:
        return
    if isinstance(use_case.model, Regression):
        findings.add("amount", "has no meaning where numbers are predicted; leave it out")
    findings.known("amount", use_case.amount, fields, what="feature that is a tr.Field of the requests")


def check_policies(use_case: UseCase, findings: Findings) -> None:
    """Checks retraining, gates and rollout."""
    retrain = use_case.retrain
    for trigger in retrain.on:
        findings.known("retrain.on", trigger, TRIGGERS, what="trigger")
    findings.known("retrain.immature", retrain.immature, ("drop", "weight"), what="treatment of immature labels")
    if retrain.immature == "weight" and use_case.label.if_absent is None:
        findings.add("retrain.immature", 'must be "drop" where the absence of an outcome says nothing (if_absent=None)')
    if not 0.0 < retrain.negative_sampling_rate <= 1.0:
        findings.add("retrain.negative_sampling_rate", f"{retrain.negative_sampling_rate!r} must lie in (0, 1]")
    pause = findings.duration("retrain.at_most_every", retrain.at_most_every, zero=True)
    findings.duration("retrain.window", retrain.window)
    if retrain.at_least_every is not None:
        every = findings.duration("retrain.at_least_every", retrain.at_least_every)
        if every < pause:
            findings.add("retrain.at_least_every", "must not be shorter than at_most_every, its cool-down")
    if retrain.every_labels is not None and retrain.every_labels < 1:
        findings.add("retrain.every_labels", f"{retrain.every_labels!r} must be 1 or greater")
    if retrain.budget is not None:
        findings.duration("retrain.budget.per", retrain.budget.per)
        if retrain.budget.trainings < 1:
            findings.add("retrain.budget.trainings", f"{retrain.budget.trainings!r} must be 1 or greater")
    if retrain.min_labels < 1:
        findings.add("retrain.min_labels", f"{retrain.min_labels!r} must be 1 or greater")
    for position, gate in enumerate(use_case.gates):
        place = f"gates[{position}] {type(gate).__name__}"
        findings.known(place, gate.metric, [m for m in _of_model(use_case)[0] if m != "top_precision"], what="metric")
        if isinstance(gate, NotWorse) and not gate.margin >= 0:
            findings.add(f"{place} margin", f"{gate.margin!r} must be 0 or greater")
        if isinstance(gate, AtLeast) and not math.isfinite(gate.value):
            findings.add(f"{place} value", f"{gate.value!r} must be a number")
    if isinstance(use_case.rollout, Shadow):
        findings.duration("rollout.hold", use_case.rollout.hold, zero=True)
        findings.share("rollout.max_disagreement", use_case.rollout.max_disagreement)
        if use_case.rollout.min_predictions < 0:
            findings.add("rollout.min_predictions", f"{use_case.rollout.min_predictions!r} must be 0 or greater")
