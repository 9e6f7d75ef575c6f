"""The loss detectors of a champion, over all of its traffic and, for those that say how far, over each slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.e_detector import Baseline, EDetectorState
from tailrace.core.judged import Judged
from tailrace.core.loss_detectors import LossDetector, losses, start_loss_detector
from tailrace.core.monitors import EDetector, LossSpec

MOST_SLICES = 64
"""Slices that are watched; those that come later are not, so that state stays bounded."""


class LossFinding(NamedTuple):
    """What a detector says after new labels: since when there is drift if that is news, and whether one stands."""

    spec: LossSpec
    slice: str
    since_ms: int | None
    detector: LossDetector


class LossWatch:
    """State of the detectors.

    Detectors of slices have no baseline of the gates and learn theirs from the slice's first labels. Together
    they alarm no more often without a change than the one of the whole.

    Args:
        specs: The use case's detectors.
        threshold: Decisions are positive from this score on.
        baselines: The champion's losses at its gates, by metric.
        stored: What `snapshot` gave.
    """

    def __init__(
        self,
        specs: Sequence[LossSpec],
        threshold: float,
        baselines: Mapping[str, Baseline],
        stored: Mapping[str, dict[str, Any]],
    ) -> None:
        self._threshold = threshold
        self._specs = {_name(spec): spec for spec in specs}
        self._whole = {
            name: start_loss_detector(spec, stored.get(name), baselines.get(spec.metric))
            for name, spec in self._specs.items()
        }
        self._sliced: dict[tuple[str, str], EDetectorState] = {}
        for key in stored:
            name, of_slice, rest = key.partition("/")
            if of_slice and name in self._specs:
                self._start_slice(name, rest, stored[key])

    @property
    def decided(self) -> frozenset[str]:
        """Metrics on which an e-detector is sure enough for others to be second opinions only."""
        return frozenset(
            spec.metric for name, spec in self._specs.items() if isinstance(spec, EDetector) and self._whole[name].sure
        )

    def feed(self, labels: Judged) -> list[LossFinding]:
        """Takes labels in order."""
        masks = _masks(labels.slices) if any(isinstance(spec, EDetector) for spec in self._specs.values()) else {}
        found = []
        for name, spec in self._specs.items():
            values = losses(spec.metric, labels.scores, labels.positive, self._threshold)
            detector = self._whole[name]
            found.append(LossFinding(spec, "", detector.update(values, labels.event_time_ms), detector))
            if isinstance(spec, EDetector):
                found += self._feed_slices(name, spec, masks, values, labels.event_time_ms)
        return found

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """State to store, by detector and slice."""
        whole = {name: detector.snapshot() for name, detector in self._whole.items()}
        return whole | {f"{name}/{part}": detector.snapshot() for (name, part), detector in self._sliced.items()}

    def _feed_slices(
        self,
        name: str,
        spec: EDetector,
        masks: Mapping[str, NDArray[np.bool_]],
        values: NDArray[np.float64],
        times_ms: NDArray[np.int64],
    ) -> Iterable[LossFinding]:
        for part in masks:
            if (name, part) not in self._sliced and sum(known == name for known, _ in self._sliced) < MOST_SLICES:
                self._start_slice(name, part, None)
        family = sum(known == name for known, _ in self._sliced)
        for part, mask in masks.items():
            detector = self._sliced.get((name, part))
            if detector is not None:
                detector.share(family)
                since_ms = detector.update(values[mask], times_ms[mask])
                yield LossFinding(spec, part, since_ms, detector)

    def _start_slice(self, name: str, part: str, snapshot: dict[str, Any] | None) -> None:
        detector = start_loss_detector(self._specs[name], snapshot)
        if isinstance(detector, EDetectorState):
            self._sliced[name, part] = detector


def named(specs: Sequence[LossSpec], states: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """States in the order of the specs, as they were stored up to format 1, by name."""
    return {_name(spec): state for spec, state in zip(specs, states, strict=False)}


def _name(spec: LossSpec) -> str:
    return f"{type(spec).__name__}|{spec.metric}"


def _masks(slices: Sequence[bytes]) -> dict[str, NDArray[np.bool_]]:
    """Which labels each slice holds, bool (n,), in the order of their names."""
    texts, which = np.unique(np.array(slices, dtype=np.bytes_), return_inverse=True)
    masks: dict[str, NDArray[np.bool_]] = {}
    for number, text in enumerate(texts.tolist()):
        for column, value in msgspec.json.decode(text, type=dict[str, str]).items():
            part, mine = f"{column}={value}", which == number
            masks[part] = masks[part] | mine if part in masks else mine
    return dict(sorted(masks.items()))
