"""What a monitor is told, and what it remembers: specs, the champion, suspicions of the labels, snapshots."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from tailrace.contracts.quality import Alarm, AlarmKind
from tailrace.core.delay_drift import MATERIAL, DelayDrift
from tailrace.core.join_watch import JoinWatchData
from tailrace.core.label_sources import SourceFinding
from tailrace.core.lost_outcomes import LostOutcomesData
from tailrace.core.monitors import Detector, Metric
from tailrace.core.prequential import Prequential
from tailrace.core.retraining import RetrainSpec, RetrainState
from tailrace.core.source_state import LabelSourcesData
from tailrace.core.vector_sample import VectorSample

FORMAT = 2


class MonitorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to watch and when to ask for a new model; spans in milliseconds.

    `decides`: predictions say yes or no. `attribution_ms` is how late an outcome may come.
    """

    use_case: str
    names: tuple[str, ...]
    threshold: float
    metrics: tuple[Metric, ...]
    metric_windows_ms: tuple[int, ...]
    detectors: tuple[Detector, ...]
    psi_every_ms: int
    retrain: RetrainSpec
    training_window_ms: int
    decides: bool = True
    attribution_ms: int = 0


class Champion(msgspec.Struct, frozen=True):
    """What feedback needs to know of the model that serves, and of the routing table that says so.

    `shadow` is the version of the candidate in shadow, "" for none.
    """

    version: str
    metrics: dict[str, float | None]
    reference: dict[str, Any]
    shadow: str = ""
    decided_at_ms: int = 0


class Suspicion(NamedTuple):
    """Something that is wrong with the labels, found outside of the monitor; it stands while it is handed in at ticks."""

    kind: AlarmKind
    subject: str
    detector: str
    value: float
    threshold: float
    size: float
    since_ms: int
    detail: str

    @staticmethod
    def of_delay(delay: DelayDrift) -> Suspicion:
        """Labels that come later or sooner than they did."""
        word = "later" if delay.later else "sooner"
        detail = (
            f"labels come {word} than they did: the older delays misjudge how many are still to come by "
            f"{delay.size:.1%} on average"
        )
        return Suspicion(
            "label_delay", "label_delay", "log_rank", delay.size, MATERIAL, delay.size, delay.since_ms, detail
        )

    @staticmethod
    def of_source(found: SourceFinding) -> Suspicion:
        """A source whose labels are not to be trusted."""
        since = datetime.fromtimestamp(found.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        said = _SAID[found.subject].format(found.value, found.limit)
        detail = f"source {found.source} {said} since {since}; its labels are left out from then on"
        size = found.value - found.limit
        return Suspicion(
            "label_source", found.source, found.subject, found.value, found.limit, size, found.since_ms, detail
        )


_SAID = {
    "flips": "contradicts the scores on {:.1%} of its labels more than other sources do, {:.1%} at most are usual,",
    "volume": "reports {:.3f} outcomes per prediction, {:.3f} at most are usual,",
    "sooner": "reports {:.1%} of its outcomes sooner than it used to, beyond what others do, {:.1%} at most are usual,",
    "later": "reports {:.1%} of its outcomes later than it used to, beyond what others do, {:.1%} at most are usual,",
}


class MonitorSnapshot(msgspec.Struct, kw_only=True):
    """State of a monitor as it is stored.

    Format 1 held the states of the loss detectors as a list in the order of the specs, in `losses`.
    """

    format: int = FORMAT
    ticked_ms: int = -1
    version: str = ""
    psi_since_ms: int = -1
    psi: dict[str, Any] | None = None
    sample: VectorSample = msgspec.field(default_factory=VectorSample)
    losses: list[dict[str, Any]] = []
    detectors: dict[str, dict[str, Any]] = {}
    joins: JoinWatchData = msgspec.field(default_factory=JoinWatchData)
    lost: LostOutcomesData = msgspec.field(default_factory=LostOutcomesData)
    sources: LabelSourcesData = msgspec.field(default_factory=LabelSourcesData)
    held: str = ""
    drift: str = ""
    alarms: dict[str, Alarm] = {}
    retrain: RetrainState = msgspec.field(default_factory=RetrainState)
    prequential: Prequential = msgspec.field(default_factory=Prequential)
