"""What heartbeats say: who lives, how much each service does, and how long predictions take."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from tailrace.contracts.records import Heartbeat

SPAN_MS = 60_000
"""Wall time over which latency and shares are taken."""
RATE_MS = 10_000
"""Wall time over which rates are taken."""
SILENT_MS = 5_000
"""A worker that has not spoken for this long counts as silent."""
FORGET_MS = 600_000
"""A silent worker is forgotten after this long: it was scaled in, or has got another name."""


class Vitals:
    """The newest heartbeats of every worker of a use case. Not thread-safe."""

    def __init__(self) -> None:
        self._beats: dict[tuple[str, str], deque[Heartbeat]] = {}

    def apply(self, beat: Heartbeat) -> None:
        """Takes a heartbeat; one of a worker that has started anew begins a new count."""
        beats = self._beats.setdefault((beat.service, beat.instance), deque())
        if beats and (beats[-1].started_at_ms != beat.started_at_ms or beats[-1].at_ms > beat.at_ms):
            beats.clear()
        beats.append(beat)
        while beats[0].at_ms < beat.at_ms - SPAN_MS:
            beats.popleft()

    def workers(self, now_ms: int) -> list[dict[str, Any]]:
        """One row per worker, by service and instance."""
        for worker in [w for w, beats in self._beats.items() if now_ms - beats[-1].at_ms > FORGET_MS]:
            del self._beats[worker]
        return [
            {
                "service": beats[-1].service,
                "instance": beats[-1].instance,
                "state": _state(beats[-1], now_ms),
                "up_s": (beats[-1].at_ms - beats[-1].started_at_ms) // 1_000,
                "records_per_s": round(_rate(beats, now_ms), 1),
                "session_restarts": beats[-1].restarts,
                "age_ms": max(now_ms - beats[-1].at_ms, 0),
            }
            for _, beats in sorted(self._beats.items())
        ]

    def records_per_s(self, service: str, now_ms: int) -> float | None:
        """Records all workers of a service take per second; None when none has spoken lately."""
        alive = [beats for (name, _), beats in self._beats.items() if name == service and _speaks(beats[-1], now_ms)]
        return sum(_rate(beats, now_ms) for beats in alive) if alive else None

    def latency(self, now_ms: int) -> dict[str, float | None]:
        """Quantiles of the time from event produced to prediction made, milliseconds, over the last minute.

        They are read off a histogram, linearly within a bucket; "max" is the upper bound of the slowest
        bucket that holds a prediction. None without predictions.
        """
        bounds: list[float] = []
        counts: list[int] = []
        for (service, _), beats in self._beats.items():
            if service == "inference" and beats[-1].latency_counts and now_ms - beats[-1].at_ms <= SPAN_MS:
                bounds = beats[-1].latency_bounds_ms
                first = beats[0].latency_counts or [0] * len(beats[-1].latency_counts)
                grown = [now - then for now, then in zip(beats[-1].latency_counts, first, strict=True)]
                counts = [a + b for a, b in zip(counts or [0] * len(grown), grown, strict=True)]
        quantiles = {f"p{percent}_ms": _quantile(bounds, counts, percent / 100) for percent in (50, 95, 99)}
        return {**quantiles, "max_ms": _quantile(bounds, counts, 1.0)}

    def degraded(self, now_ms: int) -> tuple[float, dict[str, int]]:
        """Share of predictions of the last minute with a default in them, in [0, 1], and how many by reason.

        Predictions before the first model are no fault and are left out.
        """
        predictions, reasons = 0, dict[str, int]()
        for (service, _), beats in self._beats.items():
            if service == "inference" and now_ms - beats[-1].at_ms <= SPAN_MS:
                predictions += beats[-1].predictions - beats[0].predictions
                for reason, total in beats[-1].degraded.items():
                    grown = total - beats[0].degraded.get(reason, 0)
                    if grown > 0 and reason != "no_model":
                        reasons[reason] = reasons.get(reason, 0) + grown
        # A prediction may lack several things: the commonest of them bounds the share from below.
        return (min(max(reasons.values(), default=0) / predictions, 1.0) if predictions else 0.0), reasons

    def unwell(self, services: Iterable[str], now_ms: int) -> list[tuple[str, str]]:
        """Services that cannot work, with the reason in words; in the order given."""
        found = []
        for service in services:
            newest = [beats[-1] for (name, _), beats in self._beats.items() if name == service]
            speaking = [beat for beat in newest if _speaks(beat, now_ms)]
            if not speaking:
                since = max((beat.at_ms for beat in newest), default=None)
                found.append((service, "has not been heard of" if since is None else _silence(now_ms - since)))
            elif all(beat.not_ready for beat in speaking):
                found.append((service, f"is not ready: {speaking[0].not_ready}"))
        return found


def _speaks(beat: Heartbeat, now_ms: int) -> bool:
    return now_ms - beat.at_ms <= SILENT_MS


def _state(beat: Heartbeat, now_ms: int) -> str:
    if not _speaks(beat, now_ms):
        return "silent"
    return f"not ready: {beat.not_ready}" if beat.not_ready else "ready"


def _silence(for_ms: int) -> str:
    return f"has been silent for {for_ms / 1_000:.0f} s"


def _rate(beats: deque[Heartbeat], now_ms: int) -> float:
    if not _speaks(beats[-1], now_ms):
        return 0.0
    first = next(beat for beat in beats if beat.at_ms >= beats[-1].at_ms - RATE_MS)
    took_ms = beats[-1].at_ms - first.at_ms
    return 1_000 * (beats[-1].records - first.records) / took_ms if took_ms > 0 else 0.0


def _quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    total = sum(counts)
    if total == 0:
        return None
    wanted, below = share * total, 0
    for at, count in enumerate(counts):
        if count and below + count >= wanted:
            low = bounds[at - 1] if at > 0 else 0.0
            high = bounds[at] if at < len(bounds) else bounds[-1]
            return round(low + (high - low) * (wanted - below) / count, 1)
        below += count
    return bounds[-1]
