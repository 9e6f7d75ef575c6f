"""Every metric of every service, as plain data: what `/metrics` may say, and what it means.

`backends.telemetry` makes the objects that count, `docs/metrics.md` is generated, alerts and dashboards
are tested against this table. Every metric carries two labels more, `use_case` and `stage`, the service
that speaks. Labels are bounded: no entity, event or prediction id ever becomes one.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from tailrace.contracts.quality import AlarmKind

Kind = Literal["counter", "gauge", "histogram"]
Stage = Literal["features", "inference", "feedback", "trainer", "rollout", "ops"]
STAGES: tuple[Stage, ...] = get_args(Stage)
CONSTANT_LABELS = ("use_case", "stage")

LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
TRAINING_BUCKETS_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0)
DEAD_LETTER_REASONS = (
    "empty", "not_json", "wrong_type", "not_finite", "out_of_range", "empty_key",
    "event_time_ahead", "event_time_behind", "future", "too_old", "other_plan", "wrong_shape",
    "orphan", "too_late", "out_of_window", "evicted_unresolved",
    "label_empty", "label_not_json", "label_wrong_type",
)  # fmt: skip
"""Closed, so that each is exported as 0 before its first record: a rate cannot see a series appear."""
TRIGGERS = ("initial", "schedule", "volume", "drift", "metric_drop", "refit", "manual")
OUTCOMES = ("registered", "refused", "failed")


class Label(msgspec.Struct, frozen=True):
    """A label and what bounds it: the `values` themselves, or, where a deployment decides, a sentence."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


class MetricSpec(msgspec.Struct, frozen=True):
    """One metric.

    `name` is as exposed, a counter's with `_total`. `unit` is a base unit or what is counted. `stages` are
    the services that export it. `buckets` are upper bounds of a histogram, in its unit.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    stages: tuple[Stage, ...]
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


_TOPIC = Label("topic", bound="topics of the use case")
_VERSION = Label("version", bound="versions in service since the process started")
_VIEW = Label("view", bound="online views of the plan")
_FEATURE = Label("feature", bound="columns of the plan, and `score`")
_METRIC = Label("metric", bound="live metrics of `core.metrics`")
_QUALITY_VARIANT = Label("variant", ("champion", "shadow"))
_READING = Label("reading", ("estimate", "provisional", "final", "fading"))
_CONSUMER = Label("consumer", STAGES[:5])
_LOOPS: tuple[Stage, ...] = ("inference", "feedback", "rollout")
_CONSUMERS: tuple[Stage, ...] = ("features", "inference", "feedback", "trainer", "rollout")


METRICS: dict[str, MetricSpec] = {
    # Every service
    "build_info": MetricSpec(
        "tailrace_build_info", "gauge", "info", "Always 1; says which release runs.", STAGES,
        (Label("release", bound="one per process"),),
    ),
    "ready": MetricSpec(
        "tailrace_ready", "gauge", "bool", "1 when work can be done, 0 when not; /readyz says why.", STAGES,
    ),
    "records": MetricSpec(
        "tailrace_records_total", "counter", "records",
        "Records consumed and processed. A batch that is repeated after a restart counts again.", _CONSUMERS, (_TOPIC,),
    ),
    "produced": MetricSpec(
        "tailrace_produced_records_total", "counter", "records",
        "Records produced. Those of an aborted transaction count too, and again when they are repeated.",
        ("features", *_LOOPS, "trainer"), (_TOPIC,),
    ),
    "dead_letters": MetricSpec(
        "tailrace_dead_letters_total", "counter", "records",
        "Records that could not be used, counted by the service that found them out.",
        ("features", "inference", "feedback"), (Label("reason", DEAD_LETTER_REASONS),),
    ),
    "duplicates": MetricSpec(
        "tailrace_duplicates_total", "counter", "records", "Records recognised as seen before, and dropped.",
        ("features", "inference"), (_TOPIC,),
    ),
    "batch_seconds": MetricSpec(
        "tailrace_batch_seconds", "histogram", "seconds", "Time to process one micro-batch, outputs handed over.",
        ("features", *_LOOPS), buckets=LATENCY_BUCKETS_S,
    ),
    "commit_seconds": MetricSpec(
        "tailrace_commit_seconds", "histogram", "seconds", "Time to make outputs and offsets durable.",
        ("features", *_LOOPS), buckets=LATENCY_BUCKETS_S,
    ),
    "restarts": MetricSpec(
        "tailrace_session_restarts_total", "counter", "sessions",
        "Transactional sessions given up and begun anew. Restarts of the process show in "
        "`process_start_time_seconds`.", _LOOPS,
        (Label("reason", ("BrokerUnavailable", "StoreUnavailable", "RegistryUnavailable", "KafkaException")),),
    ),
    "guarded_call": MetricSpec(
        "tailrace_guarded_call_seconds", "gauge", "seconds",
        "How long the present call inside a transaction has taken, 0 between calls. At 90 the deadman ends the process.",
        _LOOPS,
    ),
    # features
    "events": MetricSpec(
        "tailrace_features_events_total", "counter", "events", "Requests taken up, bad ones among them.", ("features",),
    ),
    "store_errors": MetricSpec(
        "tailrace_online_store_errors_total", "counter", "calls",
        "Calls to the online store that failed. After a failed read the store is left alone for up to 30 seconds.",
        ("features", "inference"), (Label("operation", ("read", "write")),),
    ),
    # inference
    "end_to_end_seconds": MetricSpec(
        "tailrace_inference_end_to_end_seconds", "histogram", "seconds", "From event produced to prediction made.",
        ("inference",), buckets=LATENCY_BUCKETS_S,
    ),
    "predictions": MetricSpec(
        "tailrace_inference_predictions_total", "counter", "predictions", "Predictions made, those of shadows too.",
        ("inference",), (Label("variant", bound="variants of the routing table"), _VERSION),
    ),
    "degraded": MetricSpec(
        "tailrace_inference_degraded_total", "counter", "predictions",
        "Predictions of models with traffic that have a default in them. One with two reasons counts for each.",
        ("inference",), (Label("reason", bound="`no_model`, `model_failed` and the online views of the plan"),),
    ),
    "feature_rows": MetricSpec(
        "tailrace_inference_feature_rows_total", "counter", "rows",
        "Rows asked of the online store: `fresh` may be used, `stale` is older than the view allows, `absent` is not "
        "there, `unread` could not be asked for.",
        ("inference",), (_VIEW, Label("state", ("fresh", "stale", "absent", "unread"))),
    ),
    "feature_age": MetricSpec(
        "tailrace_inference_feature_age_seconds_total", "counter", "seconds",
        "Ages at event time of the fresh and stale rows read, added up: divided by their number, the mean age.",
        ("inference",), (_VIEW,),
    ),
    "model_failures": MetricSpec(
        "tailrace_inference_model_failures_total", "counter", "failures",
        "`run`: rows a model could not score; else, models that could not be taken up, by error.", ("inference",),
        (Label("reason", ("run", "ArtifactInvalid", "PlanMismatch", "StateCorrupt", "ValueError", "BrokerUnavailable",
                          "StoreUnavailable", "RegistryUnavailable")),),
    ),
    "model_info": MetricSpec(
        "tailrace_inference_model_info", "gauge", "info", "Always 1; the models in service, no series for others.",
        ("inference",), (Label("variant", bound="variants of the routing table"), _VERSION),
    ),
    # routing
    "epoch": MetricSpec(
        "tailrace_control_epoch", "gauge", "epoch",
        "Epoch of the routing table in force; of rollout: the newest decided. 0 before the first.", _LOOPS,
    ),
    # feedback
    "watermark": MetricSpec(
        "tailrace_watermark_timestamp_seconds", "gauge", "seconds",
        "Stream time, Unix seconds. `time() - tailrace_watermark_timestamp_seconds` is its lag behind the wall clock; "
        "in a replay of old events that is their age.", ("feedback",),
    ),
    "labels": MetricSpec(
        "tailrace_feedback_labels_total", "counter", "changes", "Changes of labels.", ("feedback",),
        (Label("reason", ("prediction", "outcome", "window_closed", "timeout", "correction", "retract", "censored")),),
    ),
    "join_repeats": MetricSpec(
        "tailrace_feedback_join_repeats_total", "counter", "records",
        "Outcomes, and second predictions of one id, that said again what was known, contradicted it, or were older "
        "than it.", ("feedback",), (Label("kind", ("duplicate", "conflict", "stale_revision")),),
    ),
    "evictions": MetricSpec(
        "tailrace_feedback_evictions_total", "counter", "events",
        "Events forgotten before their time, because no more of them may be kept: still without a final label, or "
        "with one that can then no longer be corrected.", ("feedback",), (Label("kind", ("unresolved", "closed")),),
    ),
    "open_predictions": MetricSpec(
        "tailrace_feedback_open_predictions", "gauge", "events", "Events whose outcome may still come or change.",
        ("feedback",),
    ),
    "tasks_left_out": MetricSpec(
        "tailrace_feedback_tasks_left_out", "gauge", "tasks",
        "Tasks that the monitor does not wait for: idle, silent for long, or far behind the others.", ("feedback",),
    ),
    "quality": MetricSpec(
        "tailrace_quality", "gauge", "unit of the metric",
        "Live metric over the newest day half of whose labels are final. No series where the data cannot tell.",
        ("feedback",), (_METRIC, _QUALITY_VARIANT),
    ),
    "quality_maturity": MetricSpec(
        "tailrace_quality_maturity_ratio", "gauge", "ratio", "Final labels per prediction of that day.",
        ("feedback",), (_QUALITY_VARIANT,),
    ),
    "quality_end": MetricSpec(
        "tailrace_quality_end_timestamp_seconds", "gauge", "seconds", "End of that day in stream time, Unix seconds.",
        ("feedback",), (_QUALITY_VARIANT,),
    ),
    "quality_reading": MetricSpec(
        "tailrace_quality_reading", "gauge", "unit of the metric",
        "Live metric over the newest day: `estimate` from scores alone, `provisional` from the labels so far, corrected "
        "for those to come, `final` from the labels that are final, `fading` from those of the days before as well, each "
        "counting less than the next. No series where the data cannot tell.",
        ("feedback",), (_METRIC, _QUALITY_VARIANT, _READING),
    ),
    "quality_reading_bound": MetricSpec(
        "tailrace_quality_reading_bound", "gauge", "unit of the metric",
        "End of the 95 % interval around that reading. No series for metrics without an interval.",
        ("feedback",), (_METRIC, _QUALITY_VARIANT, _READING, Label("bound", ("low", "high"))),
    ),
    "quality_reading_maturity": MetricSpec(
        "tailrace_quality_reading_maturity_ratio", "gauge", "ratio", "Final labels per prediction of the newest day.",
        ("feedback",), (_QUALITY_VARIANT,),
    ),
    "quality_drop": MetricSpec(
        "tailrace_quality_drop", "gauge", "unit of the metric",
        "How much worse the champion is than at its gates, over the window that the use case names.",
        ("feedback",), (_METRIC,),
    ),
    "quality_drop_limit": MetricSpec(
        "tailrace_quality_drop_limit", "gauge", "unit of the metric", "Drop from which the use case speaks of an alarm.",
        ("feedback",), (_METRIC,),
    ),
    "drift_score": MetricSpec(
        "tailrace_drift_score", "gauge", "PSI",
        "Population stability index of the newest period against the champion's training data.",
        ("feedback",), (_FEATURE,),
    ),
    "drift_limit": MetricSpec(
        "tailrace_drift_limit", "gauge", "PSI", "Index from which there is drift, given the number of rows.",
        ("feedback",), (_FEATURE,),
    ),
    "alarms": MetricSpec(
        "tailrace_alarms_total", "counter", "alarms", "Alarms raised.", ("feedback",),
        (Label("kind", get_args(AlarmKind)),),
    ),
    "alarms_active": MetricSpec(
        "tailrace_alarms_active", "gauge", "alarms", "Alarms that stand.", ("feedback",),
        (Label("kind", get_args(AlarmKind)),),
    ),
    "retrain_requests": MetricSpec(
        "tailrace_retrain_requests_total", "counter", "requests", "Requests for a new model, whoever made them.",
        ("feedback",), (Label("trigger", TRIGGERS),),
    ),
    # trainer
    "trainings": MetricSpec(
        "tailrace_trainings_total", "counter", "trainings",
        "Trainings ended. `refused`: there was too little data, or a gate held; `failed`: the training itself broke.",
        ("trainer",), (Label("outcome", OUTCOMES),),
    ),
    "training_seconds": MetricSpec(
        "tailrace_training_seconds", "histogram", "seconds", "Time of one training, gates and registration included.",
        ("trainer",), buckets=TRAINING_BUCKETS_S,
    ),
    # ops, from outside: a service that hangs cannot say how late it is
    "lag_seconds": MetricSpec(
        "tailrace_lag_seconds", "gauge", "seconds",
        "Age of the oldest record that a consumer has not committed yet, by its Kafka timestamp; 0 when there is none. "
        "NaN while it cannot be measured.", ("ops",), (_CONSUMER,),
    ),
    "lag_records": MetricSpec(
        "tailrace_lag_records", "gauge", "records",
        "Offsets between what a consumer has committed and the end, transaction markers included. NaN while it cannot "
        "be measured.", ("ops",), (_CONSUMER,),
    ),
}  # fmt: skip
"""By the name of the handle in `backends.telemetry.Metrics`."""


def metrics_page() -> str:
    """The page `docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "<!-- Generated by `tailrace telemetry` from services/tailrace/contracts/metrics.py; do not edit. -->",
        "",
        "Every service answers `/livez`, `/readyz` and `/metrics` on `TAILRACE_METRICS_PORT`.",
        "Every metric below carries the labels `use_case` and `stage`, the service that speaks, besides its own.",
        "Besides them there are the `process_…` metrics of the Prometheus client.",
        "Times are in seconds; a gauge without data is NaN or has no series, never 0.",
        "",
        "Rules: [k8s/alerts/rules.yaml](../k8s/alerts/rules.yaml), what to do: [runbook.md](runbook.md).",
    ]
    for spec in METRICS.values():
        lines += ["", f"## `{spec.name}`", "", spec.help, "", f"- kind: {spec.kind}", f"- unit: {spec.unit}"]
        lines.append(f"- exported by: {', '.join(spec.stages)}")
        for label in spec.labels:
            values = ", ".join(f"`{value}`" for value in label.values)
            lines.append(f"- label `{label.name}`: {values or label.bound}")
        if spec.buckets:
            lines.append(f"- buckets: {', '.join(f'{bound:g}' for bound in spec.buckets)}")
    return "\n".join(lines) + "\n"
