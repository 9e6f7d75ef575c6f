"""Live metrics over any span of days, merged exactly from the histograms on QUALITY."""

from __future__ import annotations

import datetime as dt
from typing import Any

from tailrace.backends.codec import decode
from tailrace.backends.kafka import read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.quality import Quality
from tailrace.contracts.topics import Topics
from tailrace.core.metrics import merge

ALL = "all"


def quality_between(
    settings: Settings, topics: Topics, since: dt.date, until: dt.date, variant: str
) -> list[dict[str, Any]]:
    """Metrics of a variant over the days [since, until) of event time, UTC.

    Returns:
        One row per model version, then one over all of them: "version", "predictions", "final" and the metrics.
    """
    newest = {m.key: m.value for m in read_topic(settings, topics.quality)}
    start_ms, end_ms = _midnight_ms(since), _midnight_ms(until)
    found = [
        q
        for q in (decode(Quality, value) for value in newest.values() if value is not None)
        if not (q.slice or q.auxiliary) and q.variant == variant and start_ms <= q.window_start_ms < end_ms
    ]
    rows = []
    for name in [*sorted({q.model_version for q in found}, key=lambda version: (len(version), version)), ALL]:
        part = [q for q in found if name in (ALL, q.model_version)]
        counts = {"version": name, "predictions": sum(q.predictions for q in part), "final": sum(q.final for q in part)}
        rows.append(counts | merge(part))
    return rows


def _midnight_ms(day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp() * 1_000)
