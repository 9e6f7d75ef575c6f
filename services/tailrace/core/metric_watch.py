"""How far the champion's live metrics have fallen behind those at its gates, over its newest mature days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tailrace.core.lost_outcomes import Span
from tailrace.core.monitor_state import Champion, MonitorSpec
from tailrace.core.monitors import SMALLER_IS_BETTER
from tailrace.core.quality import DAY_MS, QualityWindows
from tailrace.core.window_counts import WindowKey

MATURE = 0.5
"""Share of final labels from which a day takes part in a comparison with the champion's figures.
Below it a day would mostly speak of whatever kind of outcome is reported first."""
MIN_FINAL = 200
"""Final labels below which a metric is too uncertain to raise an alarm."""


class Drop(NamedTuple):
    """A metric against its figure at the gates: `worse` by how much, negative where it is better, and what is allowed."""

    metric: str
    worse: float
    limit: float
    detail: str


def metric_drops(
    spec: MonitorSpec, champion: Champion, windows: QualityWindows, doubtful: Sequence[Span]
) -> Iterator[Drop]:
    """Every metric that is watched and known.

    Args:
        spec: Which metrics are watched, over which spans.
        champion: Who serves, with its figures at the gates.
        windows: Live quality.
        doubtful: Spans of event time whose labels are not to be trusted though the windows count them.
    """
    spans: dict[int, dict[str, float | None]] = {}
    for metric, span_ms in zip(spec.metrics, spec.metric_windows_ms, strict=True):
        baseline = champion.metrics.get(metric.name)
        if metric.drop is None or baseline is None:
            continue
        if span_ms not in spans:
            taken = _newest_mature(champion.version, span_ms, windows, doubtful)
            spans[span_ms] = windows.metrics(taken, spec.threshold) if taken else {}
        value = spans[span_ms].get(metric.name)
        if value is not None:
            worse = value - baseline if metric.name in SMALLER_IS_BETTER else baseline - value
            detail = f"{metric.name} {value:.4f} over {metric.window}, {baseline:.4f} at the gates"
            yield Drop(metric.name, worse, metric.drop, detail)


def labels_within(span_ms: int, windows: QualityWindows) -> int:
    """Final labels of traffic in the newest days of a span, counted from the newest day that has one."""
    counted = {key: windows.final(key) for key in windows if key.slice == "" and key.variant != "shadow"}
    newest_ms = max((key.start_ms for key, final in counted.items() if final), default=0)
    return sum(final for key, final in counted.items() if key.start_ms + DAY_MS > newest_ms - span_ms)


def _newest_mature(version: str, span_ms: int, windows: QualityWindows, doubtful: Sequence[Span]) -> list[WindowKey]:
    """The champion's newest mature days; none without enough final labels."""
    mature = [
        key
        for key in windows
        if key.slice == ""
        and key.variant == "champion"
        and key.model_version == version
        and windows.maturity(key) >= MATURE
        and not any(start < key.start_ms + DAY_MS and key.start_ms < end for start, end in doubtful)
    ]
    newest_ms = max((key.start_ms for key in mature), default=0)
    taken = [key for key in mature if key.start_ms > newest_ms - span_ms]
    return taken if sum(windows.final(key) for key in taken) >= MIN_FINAL else []
