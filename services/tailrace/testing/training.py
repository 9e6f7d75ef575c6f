"""The trainer in one process: requests and its data set from the in-memory log, trainings where they are asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tailrace.backends.artifacts import write_bundle
from tailrace.backends.codec import BatchDecoder, decode, encode
from tailrace.backends.ports import DIGEST_TAG, Output
from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.contracts.retraining import (
    CandidateRefused,
    CandidateRegistered,
    EraseRequested,
    RetrainingRecord,
    RetrainRequested,
    TrainingStarted,
)
from tailrace.core.rollouts import with_role
from tailrace.core.sampling import DataSet
from tailrace.testing.shells import BATCH
from tailrace.testing.world import Crashes, World
from tailrace.trainer.dataset import Window, load
from tailrace.trainer.lake import CHUNK, LabelRow, Lake, ServedRow
from tailrace.trainer.memory import Memory

_RETRAINING: Any = RetrainingRecord


class Training:
    """Twin of the shell of `trainer`: copies PREDICTIONS and LABELS into the lake, and answers requests.

    Args:
        world: What the services share.
        crashes: When it is to be killed, in the middle of a training.
    """

    def __init__(self, world: World, crashes: Crashes) -> None:
        self._world = world
        self._log = world.log
        self._crashes = crashes
        topics = world.topics
        self._retraining = topics.retraining
        self._group = topics.group("trainer")
        self._lake = Lake(world.settings, topics)
        self._kinds: dict[str, type] = {topics.predictions: ServedRow, topics.labels: LabelRow}
        self._log.subscribe(self._group, [topics.retraining, *self._kinds])
        self._memory = Memory()

    def step(self, now_ms: int) -> bool:
        """Answers one request; False when there was none."""
        for topic in self._kinds:
            if self._waiting(topic) >= CHUNK:
                self._copy(topic)
        offset, _ = self._log.committed(self._group, self._retraining, 0)
        found = self._log.read(self._retraining, 0, offset, 1)
        if not found:
            return False
        record = decode(_RETRAINING, found[0].value or b"")
        self._memory.remember(record)
        if isinstance(record, EraseRequested):
            self._lake.erase(record)
        if isinstance(record, RetrainRequested) and not self._memory.is_answered(record):
            started = TrainingStarted(
                run_id=record.run_id, use_case=record.use_case, started_at_ms=record.requested_at_ms
            )
            self._publish(started, now_ms)
            if self._crashes.due(now_ms):
                return True
            answer = self._train(record)
            self._publish(answer, now_ms)
            self._memory.remember(answer)
        self._log.commit(self._group, self._retraining, 0, offset + 1, "")
        return True

    def register(self, model: bytes, run_id: str, now_ms: int) -> str:
        """Puts a model that somebody else made before the rollout, as if it had passed its gates; gives its version.

        Its reference and figures are those of the labels that are final by now; without any it has none.
        """
        # Slow to import, and of no use where nothing is registered.
        from tailrace.trainer.reference import reference_of
        from tailrace.trainer.tasks import task_of

        world, plan = self._world, self._world.use_case.plan
        executor = OnnxExecutor(model, width=len(plan.order), threads=world.settings.threads)
        data = self._final_rows(now_ms)
        reference: dict[str, Any] = {}
        metrics: dict[str, float | None] = {}
        if len(data.labels):
            task = task_of(plan)
            scores = task.published(executor.run(data.rows))
            reference, metrics = reference_of(plan, data.rows, scores), task.metrics(scores, data)
        known = {name: value for name, value in metrics.items() if value is not None}
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            digest = write_bundle(bundle, model=model, runtime="onnx", plan=plan, reference=reference, metrics=metrics)
            lineage = {DIGEST_TAG: digest, "plan": plan.fingerprint}
            made = world.registry.register(plan.use_case, run_id, str(bundle), known, lineage)
        record = CandidateRegistered(
            run_id=run_id,
            use_case=plan.use_case,
            model_version=made.version,
            bundle_uri=made.bundle_uri,
            digest=digest,
            registered_at_ms=now_ms,
            gates=[],
            metrics=metrics,
            lineage=lineage,
        )
        self._publish(record, now_ms)
        return made.version

    def ask_erasure(self, entity: str, value: str, now_ms: int) -> None:
        """Asks as a person does, of events before now."""
        use_case = self._world.use_case.name
        self._publish(
            EraseRequested(
                use_case=use_case,
                entity=entity,
                value=value,
                before_ms=now_ms - 1,
                by="simulation",
                reason="asked for by the simulation",
                requested_at_ms=now_ms,
            ),
            now_ms,
        )

    def _train(self, request: RetrainRequested) -> CandidateRegistered | CandidateRefused:
        # Slow to import, and of no use where nothing is trained.
        from tailrace.trainer.job import Job, run_job

        for topic in self._kinds:
            self._copy(topic)
        job = Job(
            request=request,
            champion=with_role(self._world.table(), "champion"),
            offsets=self._offsets(),
            former=self._memory.former(request),
        )
        return run_job(self._world.settings, job, use_case=self._world.use_case, registry=self._world.registry)

    def _final_rows(self, now_ms: int) -> DataSet:
        for topic in self._kinds:
            self._copy(topic)
        use_case = self._world.use_case
        return load(
            self._lake.directory,
            fingerprint=use_case.plan.fingerprint,
            window=Window.of(use_case, now_ms, weighted=False),
        )

    def _waiting(self, topic: str) -> int:
        parts = self._log.partitions(topic)
        return sum(part.end - self._log.committed(self._group, topic, at)[0] for at, part in enumerate(parts))

    def _copy(self, topic: str) -> None:
        """Writes what came into the lake, so that the log can forget it."""
        start, values = {}, []
        for number in range(len(self._log.partitions(topic))):
            start[number] = offset = self._log.committed(self._group, topic, number)[0]
            while found := self._log.read(topic, number, offset, BATCH):
                values += [message.value for message in found if message.value is not None]
                offset = found[-1].offset + 1
            self._log.commit(self._group, topic, number, offset, "")
        if values:
            kind = self._kinds[topic]
            self._lake.write(kind, BatchDecoder(kind).decode(values), "simulated", start)

    def _offsets(self) -> dict[str, str]:
        """Lineage, as `Lake.catch_up` gives it."""
        return {
            f"{topic}.offsets": ",".join(f"{at}:{part.end}" for at, part in enumerate(self._log.partitions(topic)))
            for topic in self._kinds
        }

    def _publish(self, record: Any, now_ms: int) -> None:
        self._log.append([Output(self._retraining, self._world.use_case.name.encode(), encode(record))], now_ms)
