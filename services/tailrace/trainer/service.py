"""Shell of the trainer service: takes requests in order, trains each in a child process, publishes the answer."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import consumer, producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import (
    CandidateRefused,
    CandidateRegistered,
    EraseRequested,
    RetrainingRecord,
    RetrainRequested,
    TrainingStarted,
)
from tailrace.contracts.topics import Topics
from tailrace.core.rollouts import with_role
from tailrace.errors import BadRecord, BrokerUnavailable
from tailrace.runtime.control import newest_table
from tailrace.runtime.service import Lifecycle
from tailrace.trainer.lake import Lake
from tailrace.trainer.memory import Memory
from tailrace.usecase.declaration import UseCase

_RETRAINING: Any = RetrainingRecord
COPY_EVERY_S = 5.0


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Trains until the service is asked to stop.

    What a crash may do: the offset of a request is committed after its answer was acknowledged, so a
    crash in between trains again; the answer found on the topic then keeps it from being given twice.
    """
    topics = Topics(use_case.name)
    trainer = _Trainer(settings, topics, lifecycle)
    reader = consumer(settings, topics.group("trainer"))
    reader.subscribe([topics.retraining])
    lifecycle.ready(True)
    copied_at = time.monotonic()
    try:
        while not lifecycle.stopping.is_set():
            record = reader.poll(0.1)
            if record is None:
                if time.monotonic() - copied_at > COPY_EVERY_S:
                    trainer.copy()
                    copied_at = time.monotonic()
                continue
            error = record.error()
            if error is None:
                lifecycle.metrics.records.labels(topics.retraining).inc()
                trainer.take(record.value() or b"")
                _commit(reader, topics.retraining, record.partition(), record.offset() + 1)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Behind the markers of transactions, so that a drained group has lag 0.
                _commit(reader, topics.retraining, record.partition(), record.offset())
            elif error.fatal() or not error.retriable():
                raise BrokerUnavailable(f"reading {topics.retraining} failed: {error.str()}")
    finally:
        reader.close()
        trainer.close()


class _Trainer:
    """Answers requests, each once."""

    def __init__(self, settings: Settings, topics: Topics, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._topics = topics
        self._lifecycle = lifecycle
        self._lake = Lake(settings, topics)
        self._writer: Producer = producer(settings)
        self._pool: ProcessPoolExecutor | None = None
        self._memory = Memory()
        for message in read_topic(settings, topics.retraining):
            if message.value is not None:
                record = decode(_RETRAINING, message.value)
                self._memory.remember(record)
                if isinstance(record, EraseRequested):
                    self._lake.erasures.append(record)

    def take(self, value: bytes) -> None:
        """Answers a request; other records pass."""
        try:
            request = decode(_RETRAINING, value)
        except BadRecord as error:
            self._lifecycle.log.error("request_unreadable", why=str(error))
            return
        if isinstance(request, EraseRequested):
            self._lifecycle.log.info("lake_erased", predictions=self._lake.erase(request))
        if not isinstance(request, RetrainRequested) or self._memory.is_answered(request):
            return
        self._memory.remember(request)
        began = time.monotonic()
        self._publish(
            TrainingStarted(run_id=request.run_id, use_case=request.use_case, started_at_ms=request.requested_at_ms)
        )
        answer = self._train(request)
        self._publish(answer)
        self._memory.remember(answer)
        took_s = time.monotonic() - began
        refused = answer if isinstance(answer, CandidateRefused) else None
        result = "registered" if refused is None else "failed" if refused.failed else "refused"
        self._lifecycle.metrics.trainings.labels(result).inc()
        self._lifecycle.metrics.training_seconds.observe(took_s)
        why = refused.reason if refused is not None else ""
        self._lifecycle.log.info(
            "training_ended", run_id=request.run_id, result=result, why=why, took_s=round(took_s, 1)
        )

    def copy(self) -> None:
        """Copies what came into the lake, so that a request has little left to wait for."""
        try:
            self._lake.catch_up()
        except (BrokerUnavailable, KafkaException) as error:
            self._lifecycle.log.warning("lake_behind", error=str(error))

    def close(self) -> None:
        """Ends the child process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _train(self, request: RetrainRequested) -> CandidateRegistered | CandidateRefused:
        # Imported by the child as well; here only its name is needed.
        from tailrace.trainer.child import begin, run_encoded

        offsets = self._lake.catch_up()
        # To the end, not what has come by now: the champion that the candidate is judged against follows from the log.
        champion = with_role(newest_table(self._settings, self._topics), "champion")
        if self._pool is None:
            # Kept warm: importing the trainers takes seconds, a small training less than one.
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=begin)
        job = encode((request, champion, offsets, self._memory.former(request)))
        try:
            answer = self._pool.submit(run_encoded, self._settings.model_dump_json(), job).result()
        except BrokenProcessPool:
            self._pool = None
            return CandidateRefused(
                run_id=request.run_id,
                use_case=request.use_case,
                refused_at_ms=request.requested_at_ms,
                reason="the training process died, most likely for want of memory; see the log of trainer",
                gates=[],
                failed=True,
            )
        return decode(_RETRAINING, answer)  # type: ignore[no-any-return]  # the child encodes nothing else

    def _publish(self, record: Any) -> None:
        self._writer.produce(self._topics.retraining, encode(record), self._topics.use_case)
        if self._writer.flush(30):
            raise BrokerUnavailable(f"{self._topics.retraining} was not acknowledged within 30 s")
        self._lifecycle.metrics.produced.labels(self._topics.retraining).inc()


def _commit(reader: Consumer, topic: str, partition: int, offset: int) -> None:
    reader.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
