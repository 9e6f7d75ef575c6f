"""One task: what one partition of predictions, and the outcomes that belong to it, come to."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.backends.ports import Output
from tailrace.core.join_table import Rows
from tailrace.core.joins import Arrivals, Changes, JoinSpec, Reports
from tailrace.core.monitoring import HOUR_MS
from tailrace.core.vector_sample import VectorSample
from tailrace.feedback.changelog import Changelog, Restored
from tailrace.feedback.label_join import LabelJoin
from tailrace.feedback.observations import Observation, Observed, Recorder, Vectors, observations
from tailrace.feedback.specs import join_spec, monitor_spec
from tailrace.usecase.declaration import UseCase


class ObservedJoin(LabelJoin):
    """Join of one label that says what it does.

    Args:
        spec: How its outcomes are joined.
        restored: What the changelog holds; None to begin.
        watermark_ms: Stream time reached; -1 to begin.
    """

    def __init__(self, spec: JoinSpec, restored: Restored | None = None, watermark_ms: int = -1) -> None:
        super().__init__(spec, restored, watermark_ms)
        self._recorder = Recorder(self.sources)
        self._changes: list[Changes] = []
        self._observed: list[Observed] = []

    def predict(self, arrivals: Arrivals) -> Changes:
        """Takes predictions."""
        return self._noted(super().predict(arrivals))

    def observe(self, reports: Reports) -> Changes:
        """Takes outcomes."""
        return self._noted(super().observe(reports))

    def advance(self, watermark_ms: int) -> Changes:
        """Moves stream time."""
        return self._noted(super().advance(watermark_ms))

    def changes(self) -> Changes:
        """What has changed since the last `store`."""
        return Changes.joined(self._changes) if self._changes else Changes.none()

    def take_observed(self) -> list[Observed]:
        """What has been stored since the last call."""
        observed, self._observed = self._observed, []
        return observed

    def _noted(self, changes: Changes) -> Changes:
        if changes.rows.size:
            self._changes.append(changes)
        return changes

    def _done(self, added: Rows, touched: Rows, gone: Rows) -> None:
        self._observed += self._recorder.record(self.table, added, touched, self.changes(), gone)
        self._changes = []


class TaskState:
    """State of one task. It depends on the records of its partitions alone, and not on who owns it.

    Args:
        use_case: The use case.
        task: Its number, that of the partition of predictions.
        restored: What the changelog holds of each label, in their order; empty to begin.
        watermark_ms: Stream time reached; -1 to begin.

    Attributes:
        labels: The join of each label; the first judges the model.
        sample: Which of the champion's inputs drift is judged by.
        told: How many observations there were.
        idle: Whether nothing comes any more.
    """

    def __init__(self, use_case: UseCase, task: int, restored: Sequence[Restored] = (), watermark_ms: int = -1) -> None:
        self.task = task
        self.watermark_ms = watermark_ms
        self.sample = VectorSample()
        found: Sequence[Restored | None] = restored or [None] * len(use_case.labels)
        self.labels = tuple(
            ObservedJoin(join_spec(label), of_label, watermark_ms)
            for label, of_label in zip(use_case.labels, found, strict=True)
        )
        self._sample_ms = max(monitor_spec(use_case).psi_every_ms, HOUR_MS)
        self.told = 0
        self.idle = False
        self._told_ms, self._told_idle = watermark_ms, False
        self._vectors: list[Vectors] = []

    def predict(self, arrivals: Arrivals, vectors: Sequence[Vectors] = ()) -> None:
        """Takes predictions, and the inputs of those that are sampled."""
        for label in self.labels:
            label.predict(arrivals)
        self._vectors += vectors

    def observe(self, at: int, reports: Reports) -> None:
        """Takes outcomes of one label."""
        self.labels[at].observe(reports)

    def advance(self, watermark_ms: int) -> None:
        """Moves stream time; at a full hour, what can no longer change is forgotten."""
        before_ms, self.watermark_ms = self.watermark_ms, watermark_ms
        for label in self.labels:
            label.advance(watermark_ms)
        if watermark_ms // self._sample_ms > before_ms // self._sample_ms:
            self.sample.next_period()
        if watermark_ms // HOUR_MS > before_ms // HOUR_MS:
            for label in self.labels:
                label.forget(watermark_ms)

    def changes(self) -> list[Changes]:
        """What has changed of each label since the last `store`."""
        return [label.changes() for label in self.labels]

    def store(self, changelogs: Sequence[Changelog]) -> tuple[list[Output], list[Observation]]:
        """What the changelogs have to be told since the last call, and what was observed; frees what is gone."""
        outputs = [
            output
            for label, changelog in zip(self.labels, changelogs, strict=True)
            for output in label.store(changelog)
        ]
        observed = [label.take_observed() for label in self.labels]
        said = list(observations(self.task, self._told_ms, self.watermark_ms, observed, self._vectors))
        self._vectors = []
        if self.idle and not self._told_idle and not said:
            said = [Observation(self.task, self.watermark_ms, [Observed() for _ in self.labels])]
        for one in said:
            one.number, one.idle = self.told, self.idle
            self.told += 1
            self._told_ms, self._told_idle = self.watermark_ms, self.idle
        return outputs, said
