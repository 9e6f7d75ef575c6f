"""Names and policies of the topics of a use case."""

from __future__ import annotations

import msgspec

AUDIT = "tailrace.audit"

READERS = "tailrace.reader"
"""Group of every reader that belongs to none: the client asks where it lives, and nothing is ever committed for it."""


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic as `tailrace topics apply` creates it.

    `partitions` 0 means: as many as the events topic. `retention_ms` -1 keeps records for ever. Those that are `parallel`
    are there where several workers of feedback share the joins.
    """

    name: str
    partitions: int = 0
    compacted: bool = False
    retention_ms: int = -1
    parallel: bool = False


class Topics(msgspec.Struct, frozen=True):
    """The topics Tailrace owns for one use case."""

    use_case: str

    @property
    def features(self) -> str:
        """Events with their feature rows; same partition as the event."""
        return f"{self.use_case}.features"

    @property
    def features_changelog(self) -> str:
        """Window state, one record per key; read by `features` alone."""
        return f"{self.use_case}.features-changelog"

    @property
    def predictions(self) -> str:
        """One prediction per event, exactly once."""
        return f"{self.use_case}.predictions"

    @property
    def shadow(self) -> str:
        """What models without traffic would have said."""
        return f"{self.use_case}.shadow"

    @property
    def labels(self) -> str:
        """Predictions with what is known of their outcome."""
        return f"{self.use_case}.labels"

    @property
    def feedback_changelog(self) -> str:
        """Join and detector state; read by `feedback` alone."""
        return f"{self.use_case}.feedback-changelog"

    @property
    def join_changelog(self) -> str:
        """State of the joins where several workers share them, a partition for each task; read by `feedback` alone."""
        return f"{self.use_case}.join-changelog"

    @property
    def observations(self) -> str:
        """What tasks of feedback say of themselves; read by the monitor alone."""
        return f"{self.use_case}.observations"

    @property
    def quality(self) -> str:
        """Live metrics by window, version and slice."""
        return f"{self.use_case}.quality"

    @property
    def drift(self) -> str:
        """Newest distance of every feature, and of the score, from the champion's training data."""
        return f"{self.use_case}.drift"

    @property
    def alarms(self) -> str:
        """Drift, quality, freshness and service alarms."""
        return f"{self.use_case}.alarms"

    @property
    def retraining(self) -> str:
        """Requests for a new model and what became of them."""
        return f"{self.use_case}.retraining"

    @property
    def control(self) -> str:
        """Routing tables; the highest epoch holds."""
        return f"{self.use_case}.control"

    @property
    def dead_letters(self) -> str:
        """Records that could not be used, byte for byte."""
        return f"{self.use_case}.dead-letters"

    @property
    def heartbeats(self) -> str:
        """What every worker says of itself, once a second."""
        return f"{self.use_case}.heartbeats"

    def group(self, service: str) -> str:
        """Consumer group of a service of this use case."""
        return f"tailrace.{self.use_case}.{service}"

    def owned(self) -> list[TopicSpec]:
        """Every topic Tailrace creates for this use case, or would if its feedback were parallel."""
        return [
            TopicSpec(self.features),
            TopicSpec(self.features_changelog, compacted=True),
            TopicSpec(self.predictions),
            TopicSpec(self.shadow),
            TopicSpec(self.labels),
            TopicSpec(self.feedback_changelog, partitions=1, compacted=True),
            TopicSpec(self.join_changelog, compacted=True, parallel=True),
            TopicSpec(self.observations, partitions=1, compacted=True, parallel=True),
            TopicSpec(self.quality, partitions=1, compacted=True),
            TopicSpec(self.drift, partitions=1, compacted=True),
            TopicSpec(self.alarms, partitions=1),
            TopicSpec(self.retraining, partitions=1),
            TopicSpec(self.control, partitions=1, compacted=True),
            TopicSpec(self.dead_letters, partitions=1),
            TopicSpec(self.heartbeats, partitions=1, retention_ms=3_600_000),
            TopicSpec(AUDIT, partitions=1),
        ]
