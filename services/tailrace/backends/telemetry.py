"""The Prometheus objects behind the table in `contracts.metrics`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np
import prometheus_client
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from tailrace.contracts.metrics import LATENCY_BUCKETS_S, METRICS, MetricSpec

__all__ = ["LATENCY_BUCKETS_S", "LabelledRegistry", "Metrics", "observe_all"]

# A timestamp beside every counter doubles what is scraped, and says what `process_start_time_seconds` says.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped library


class LabelledRegistry(CollectorRegistry):
    """A registry that adds the same labels to whatever it exports.

    Bound once at the edge they cost the hot path nothing.

    Args:
        labels: Name to value.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._constant = dict(labels)

    def collect(self) -> Iterable[Metric]:
        """Every metric, with the constant labels first."""
        for metric in super().collect():
            metric.samples = [s._replace(labels={**self._constant, **s.labels}) for s in metric.samples]
            yield metric

    def get_sample_value(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """Value of one sample by its own labels; None when there is no such sample."""
        return super().get_sample_value(name, {**self._constant, **(labels or {})})


class Metrics:
    """Prometheus handles, one for each entry of `contracts.metrics.METRICS`.

    A service exports only what it speaks of; the other handles work, and go nowhere.
    Labels with a closed set of values are exported as 0 from the start.

    Args:
        use_case: Label of every metric.
        stage: Service that speaks; "" exports everything, for tests.

    Attributes:
        registry: What `/metrics` exports.
    """

    build_info: Gauge
    ready: Gauge
    records: Counter
    produced: Counter
    dead_letters: Counter
    duplicates: Counter
    batch_seconds: Histogram
    commit_seconds: Histogram
    restarts: Counter
    guarded_call: Gauge
    events: Counter
    store_errors: Counter
    end_to_end_seconds: Histogram
    predictions: Counter
    degraded: Counter
    feature_rows: Counter
    feature_age: Counter
    model_failures: Counter
    model_info: Gauge
    epoch: Gauge
    watermark: Gauge
    labels: Counter
    join_repeats: Counter
    evictions: Counter
    open_predictions: Gauge
    tasks_left_out: Gauge
    quality: Gauge
    quality_maturity: Gauge
    quality_end: Gauge
    quality_reading: Gauge
    quality_reading_bound: Gauge
    quality_reading_maturity: Gauge
    quality_drop: Gauge
    quality_drop_limit: Gauge
    drift_score: Gauge
    drift_limit: Gauge
    alarms: Counter
    alarms_active: Gauge
    retrain_requests: Counter
    trainings: Counter
    training_seconds: Histogram
    lag_seconds: Gauge
    lag_records: Gauge

    def __init__(self, use_case: str, stage: str = "") -> None:
        self.registry = LabelledRegistry({"use_case": use_case, "stage": stage})
        prometheus_client.ProcessCollector(registry=self.registry)
        for handle, spec in METRICS.items():
            exported = not stage or stage in spec.stages
            setattr(self, handle, _made(spec, self.registry if exported else None))


def observe_all(histogram: Histogram, values: NDArray[np.float64]) -> None:
    """Observes many values at once; `Histogram.observe` for each would cost as much as scoring them.

    Args:
        histogram: A histogram without labels.
        values: float64 (n,), finite.
    """
    # The library has no such call; a test compares with `observe`, so that a change of these names shows.
    bounds = histogram._upper_bounds
    counts = np.bincount(np.searchsorted(bounds, values, side="left"), minlength=len(bounds))
    for bucket, count in zip(histogram._buckets, counts.tolist(), strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(float(values.sum()))


def _made(spec: MetricSpec, registry: CollectorRegistry | None) -> Counter | Gauge | Histogram:
    names = [label.name for label in spec.labels]
    made: Counter | Gauge | Histogram
    if spec.kind == "counter":
        made = Counter(spec.name, spec.help, names, registry=registry)
    elif spec.kind == "histogram":
        made = Histogram(spec.name, spec.help, names, buckets=spec.buckets, registry=registry)
    else:
        made = Gauge(spec.name, spec.help, names, registry=registry)
        if not names:
            made.set(math.nan)  # nothing is known yet, and 0 would say something
    if names and spec.kind == "counter" and all(label.values for label in spec.labels):
        for values in product(*(label.values for label in spec.labels)):
            made.labels(*values)
    return made
