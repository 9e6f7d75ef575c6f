"""What speaks for or against a candidate in shadow: the newest counts of its windows and of the champion's."""

from __future__ import annotations

from typing import NamedTuple

from tailrace.contracts.quality import Quality


class Disagreement(NamedTuple):
    """How many predictions a shadow made, and on which share of the events it decides otherwise than the champion."""

    predictions: int
    share: float


class RolloutEvidence:
    """The newest record of each window, variant and version."""

    def __init__(self) -> None:
        self._quality: dict[tuple[int, str, str], Quality] = {}

    def take(self, record: Quality) -> None:
        """Takes in a record, in place of what was known of its window."""
        self._quality[record.window_start_ms, record.variant, record.model_version] = record

    def forget_shadows(self) -> None:
        """Forgets what was said of any shadow."""
        self._quality = {key: record for key, record in self._quality.items() if key[1] != "shadow"}

    def disagreement(self, version: str) -> Disagreement:
        """Of a version in shadow, over all its windows; a share of 0 where the champion decided on none of its events."""
        seen = [record for key, record in self._quality.items() if key[1:] == ("shadow", version)]
        paired = sum(record.paired for record in seen)
        share = sum(record.disagreements for record in seen) / paired if paired else 0.0
        return Disagreement(sum(record.predictions for record in seen), share)

    def losses(self, shadow: str, champion: str, *, loss: str, min_labels: int) -> tuple[float, float] | None:
        """Mean loss of two versions over the windows that both were in, weighted by final labels.

        Args:
            shadow: Version in shadow.
            champion: Version that serves.
            loss: Name of the metric.
            min_labels: Fewest final labels on both sides; with fewer there is no answer.
        """
        sums = [0.0, 0.0]
        counts = [0, 0]
        for start in {key[0] for key in self._quality}:
            pair = (self._quality.get((start, "shadow", shadow)), self._quality.get((start, "champion", champion)))
            for at, record in enumerate(pair):
                value = record.metrics.get(loss) if record is not None and all(pair) else None
                if record is not None and value is not None:
                    sums[at] += value * record.final
                    counts[at] += record.final
        if min(counts) < min_labels:
            return None
        return sums[0] / counts[0], sums[1] / counts[1]
