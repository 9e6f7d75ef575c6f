"""Every metric of every service: kind, unit, labels and meaning, in one place."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)


class Metrics:
    """Prometheus handles. Labels are bounded: use case, topic, variant, version, reason; never a key or id.

    Args:
        use_case: Bound to every metric.
        registry: Where they are collected; a fresh registry for each service process.
    """

    def __init__(self, use_case: str, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._use_case = use_case
        self.records = self._counter("tailrace_records", "Records consumed.", "topic")
        self.produced = self._counter("tailrace_produced_records", "Records produced.", "topic")
        self.dead_letters = self._counter("tailrace_dead_letters", "Records that could not be used.", "reason")
        self.duplicates = self._counter("tailrace_duplicates", "Records recognised as seen before.", "topic")
        self.batch_seconds = self._histogram("tailrace_batch_seconds", "Time to process one micro-batch.")
        self.commit_seconds = self._histogram("tailrace_commit_seconds", "Time to commit one transaction.")
        self.restarts = self._counter("tailrace_session_restarts", "Transactions given up and begun anew.", "reason")
        self.end_to_end_seconds = self._histogram(
            "tailrace_inference_end_to_end_seconds", "From event produced to prediction made."
        )
        self.predictions = self._counter("tailrace_inference_predictions", "Predictions made.", "variant", "version")
        self.degraded = self._counter("tailrace_inference_degraded", "Predictions with a default in them.", "reason")
        self.model_failures = self._counter("tailrace_inference_model_failures", "Models that failed.", "reason")
        self.epoch = self._gauge("tailrace_control_epoch", "Epoch of the routing table in force.")
        self.watermark = self._gauge("tailrace_watermark_timestamp_seconds", "Stream time.")
        self.labels = self._counter("tailrace_feedback_labels", "Label changes.", "reason")
        self.open_predictions = self._gauge("tailrace_feedback_open_predictions", "Predictions that wait for outcomes.")
        self.quality = self._gauge(
            "tailrace_quality_ratio", "Live metric of the newest mature window.", "metric", "version"
        )
        self.alarms = self._counter("tailrace_alarms", "Alarms raised.", "kind")
        self.retrain_requests = self._counter("tailrace_retrain_requests", "Retraining requests.", "trigger")
        self.trainings = self._counter("tailrace_trainings", "Trainings ended.", "result")
        self.training_seconds = self._histogram("tailrace_training_seconds", "Time of one training.")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, buckets=LATENCY_BUCKETS_S, registry=self.registry)
