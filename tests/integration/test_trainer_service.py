import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from confluent_kafka.admin import NewTopic

from tailrace.backends.artifacts import open_bundle
from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import admin, committed_offsets, end_offsets, producer, read_topic
from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.backends.settings import Settings
from tailrace.contracts.records import LabelledPrediction, Prediction, RoutingTable, Source, Variant
from tailrace.contracts.retraining import (
    CandidateRefused,
    CandidateRegistered,
    RetrainingRecord,
    RetrainRequested,
    TrainingStarted,
)
from tailrace.contracts.topics import Topics
from tailrace.runtime.service import Lifecycle
from tailrace.trainer.service import run
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

DAY_MS = 86_400_000
START_MS = 1_735_689_600_000
ROWS = 1_200
UNTIL_MS = START_MS + 20 * DAY_MS
DECLARATION = """
import tailrace as tr

class Request(tr.Event):
    event_id: str
    card: str
    amount: float
    at_ms: int

class Outcome(tr.Event):
    event_id: str
    fraud: bool
    at_ms: int

requests = tr.Topic("NAME.requests", Request, key="card", event_time="at_ms")
outcomes = tr.Topic("NAME.outcomes", Outcome, key="event_id", event_time="at_ms")
label = tr.Label(outcomes, on="event_id", value="fraud", matures_after="1d")
usecase = tr.UseCase(
    name="NAME",
    requests=requests,
    prediction_id="event_id",
    features=[tr.Field("amount"), tr.HourOfDay()],
    label=label,
    model=tr.Binary(train="TRAINER", seed=3),
    retrain=tr.Retrain(window="30d", min_labels=100),
)
"""


def declare(folder: Path, name: str, trainer: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "usecase.py").write_text(DECLARATION.replace("NAME", name).replace("TRAINER", trainer))


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return Settings(kafka_bootstrap=broker, state_dir=tmp_path / "state", use_cases=tmp_path / "use_cases")


def start_use_case(settings: Settings, trainer: str) -> UseCase:
    name = f"trainer_{trainer}_{time.time_ns()}"
    declare(settings.use_cases, name, trainer)
    topics = Topics(name)
    client = admin(settings)  # its calls fail once it is collected
    made = client.create_topics(
        [NewTopic(topic, 2, 1) for topic in (topics.predictions, topics.labels)]
        + [NewTopic(topic, 1, 1) for topic in (topics.retraining, topics.control)]
    )
    for future in made.values():
        future.result(30)
    return load_use_case(settings.use_cases, name)


def prediction(use_case: UseCase, number: int, features: list[float | None], fingerprint: str) -> Prediction:
    return Prediction(
        prediction_id=f"e{number}:default",
        event_id=f"e{number}",
        use_case=use_case.name,
        key="c",
        entities={},
        slices={},
        event_time_ms=START_MS + number * 15 * DAY_MS // ROWS,
        predicted_at_ms=0,
        variant="default",
        model_version="0",
        model_digest="",
        epoch=0,
        score=0.5,
        decision=True,
        threshold=0.5,
        propensity=1.0,
        features=features,
        ages_ms={},
        fingerprint=fingerprint,
        degraded=[],
        source=Source(topic="s", partition=0, offset=number),
        produced_at_ms=0,
    )


def labelled(of: Prediction, *, label: bool, version: int = 1, known_at_ms: int | None = None) -> LabelledPrediction:
    return LabelledPrediction(
        prediction_id=of.prediction_id,
        event_id=of.event_id,
        use_case=of.use_case,
        label_name="fraud",
        label_version=version,
        label=float(label),
        status="final",
        reason="outcome",
        event_time_ms=of.event_time_ms,
        known_at_ms=of.event_time_ms + DAY_MS if known_at_ms is None else known_at_ms,
        outcome_time_ms=None,
        variant=of.variant,
        model_version=of.model_version,
        score=of.score,
        decision=of.decision,
        key=of.key,
        entities={},
        slices={},
    )


def send_history(settings: Settings, use_case: UseCase, first: int = 0, sign: float = 1.0) -> None:
    """Predictions with labels that follow the amount, or its opposite; every fifth amount is missing."""
    rng = np.random.default_rng(1 + first)
    writer, topics = producer(settings), Topics(use_case.name)
    for number in range(first, first + ROWS):
        amount = float(rng.normal())
        served = prediction(
            use_case, number, [None if number % 5 == 0 else amount, number % 24], use_case.plan.fingerprint
        )
        judged = labelled(served, label=sign * amount + 0.5 * float(rng.normal()) > 0.5)
        writer.produce(topics.predictions, encode(served), served.key, partition=number % 2)
        writer.produce(topics.labels, encode(judged), judged.key, partition=number % 2)
    assert writer.flush(30) == 0


def ask(settings: Settings, use_case: UseCase, run_id: str, until_ms: int = UNTIL_MS, **fields: Any) -> None:
    request = RetrainRequested(
        run_id=run_id,
        use_case=use_case.name,
        trigger="manual",
        reason="test",
        requested_at_ms=until_ms,
        train_until_ms=until_ms,
    )
    request = msgspec.structs.replace(request, **fields)
    writer = producer(settings)
    writer.produce(Topics(use_case.name).retraining, encode(request), use_case.name)
    assert writer.flush(30) == 0


def records(settings: Settings, use_case: UseCase) -> list[Any]:
    kind: Any = RetrainingRecord
    return [decode(kind, m.value or b"") for m in read_topic(settings, Topics(use_case.name).retraining)]


def answers(settings: Settings, use_case: UseCase) -> list[Any]:
    return [r for r in records(settings, use_case) if isinstance(r, CandidateRegistered | CandidateRefused)]


def wait_until(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not done within {timeout_s} s"
        time.sleep(0.1)


class Running:
    """The service in a thread of the test."""

    def __init__(self, settings: Settings, use_case: UseCase) -> None:
        self.lifecycle = Lifecycle("trainer", use_case.name)
        self._thread = threading.Thread(target=run, args=(settings, use_case, self.lifecycle))

    def __enter__(self) -> "Running":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lifecycle.stopping.set()
        self._thread.join(60)


@pytest.mark.parametrize("trainer", ["boosting", "torch"])
def test_same_rows_and_seed_give_candidates_of_the_same_readable_bundle(settings: Settings, trainer: str) -> None:
    use_case = start_use_case(settings, trainer)
    send_history(settings, use_case)
    with Running(settings, use_case):
        for run_id in ("run-1", "run-2"):
            ask(settings, use_case, run_id)
        # Starting the child and importing its trainer take seconds, more on a busy machine.
        wait_until(lambda: len(answers(settings, use_case)) == 2, 120)
    first, second = answers(settings, use_case)
    assert isinstance(first, CandidateRegistered), first
    assert isinstance(second, CandidateRegistered), second
    assert (("1", "2"), first.digest) == ((first.model_version, second.model_version), second.digest)
    bundle = open_bundle(first.bundle_uri, first.digest)
    rows = np.array([[2.0, 12.0], [-2.0, 12.0], [np.nan, 12.0]], dtype=np.float32)
    high, low, missing = OnnxExecutor(bundle.model, width=2).run(rows)
    assert high > missing > low
    assert "amount" in bundle.reference["features"]
    assert first.metrics == bundle.metrics


def test_answered_request_is_not_answered_again_and_its_offset_ends_up_committed(settings: Settings) -> None:
    use_case = start_use_case(settings, "boosting")
    ask(settings, use_case, "run-1")
    with Running(settings, use_case):
        wait_until(lambda: len(answers(settings, use_case)) == 1, 120)
    [refused] = answers(settings, use_case)
    assert isinstance(refused, CandidateRefused)
    assert "rows" in refused.reason
    ask(settings, use_case, "run-1")
    topic, group = Topics(use_case.name).retraining, Topics(use_case.name).group("trainer")
    with Running(settings, use_case):
        wait_until(lambda: committed(settings, group, topic) == end_offsets(admin(settings), topic)[0], 30)
    kinds = [type(record) for record in records(settings, use_case)]
    assert [RetrainRequested, TrainingStarted, CandidateRefused, RetrainRequested] == kinds


def test_rows_of_another_plan_in_the_same_topic_do_no_harm(settings: Settings) -> None:
    use_case = start_use_case(settings, "boosting")
    writer = producer(settings)
    for number in range(50):
        served = prediction(use_case, number, [1.0, 2.0, 3.0], "another")
        writer.produce(Topics(use_case.name).predictions, encode(served), served.key, partition=0)
    assert writer.flush(30) == 0
    send_history(settings, use_case)
    with Running(settings, use_case):
        ask(settings, use_case, "run-1")
        wait_until(lambda: len(answers(settings, use_case)) == 1, 120)
    [answer] = answers(settings, use_case)
    assert isinstance(answer, CandidateRegistered), answer


def serve(settings: Settings, use_case: UseCase, model: CandidateRegistered, epoch: int) -> None:
    """Makes a candidate champion, as `rollout` would."""
    champion = Variant(
        name="champion",
        role="champion",
        model_version=model.model_version,
        bundle_uri=model.bundle_uri,
        digest=model.digest,
        share=1.0,
    )
    table = RoutingTable(
        use_case=use_case.name, epoch=epoch, decided_at_ms=0, reason="test", salt="s", variants=[champion]
    )
    writer = producer(settings)
    writer.produce(Topics(use_case.name).control, encode(table), use_case.name)
    assert writer.flush(30) == 0


def test_concept_that_returns_brings_back_the_champion_that_served_it_without_a_training(settings: Settings) -> None:
    use_case = start_use_case(settings, "boosting")
    spans = [(START_MS + days * DAY_MS, START_MS + (days + 17) * DAY_MS) for days in (0, 15, 30)]
    registered: list[Any] = []
    with Running(settings, use_case):
        for number, (sign, (from_ms, until_ms)) in enumerate(zip((1.0, -1.0, 1.0), spans, strict=True)):
            send_history(settings, use_case, number * ROWS, sign)
            changed = {"trigger": "drift", "train_from_ms": from_ms, "champion": str(number)} if number else {}
            ask(settings, use_case, f"run-{number + 1}", until_ms, **changed)
            wait_until(lambda: len(answers(settings, use_case)) == number + 1, 120)  # noqa: B023  # waits within the turn
            registered.append(answers(settings, use_case)[-1])
            assert isinstance(registered[-1], CandidateRegistered), registered[-1]
            serve(settings, use_case, registered[-1], number + 1)
    first, second, third = registered
    assert [record.recalled for record in registered] == [False, False, True]
    assert (third.model_version, third.digest) == (first.model_version, first.digest)
    assert second.digest != first.digest
    assert int(second.lineage["train_from_ms"]) >= spans[1][0]


@pytest.fixture
def trainer_process(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], UseCase]]:
    use_case = start_use_case(settings, "boosting")
    environment = os.environ | {
        "TAILRACE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "TAILRACE_STATE_DIR": str(settings.state_dir),
        "TAILRACE_USE_CASES": str(settings.use_cases),
    }
    command = [sys.executable, "-m", "tailrace", "run", "trainer", "--use-case", use_case.name]
    process = subprocess.Popen(command, env=environment)
    yield process, use_case
    if process.poll() is None:
        process.kill()
    process.wait(30)


def test_training_process_dies_with_a_killed_service(
    settings: Settings, trainer_process: tuple[subprocess.Popen[bytes], UseCase]
) -> None:
    process, use_case = trainer_process
    send_history(settings, use_case)
    ask(settings, use_case, "run-1")
    wait_until(lambda: len(answers(settings, use_case)) == 1, 120)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    _, alive = psutil.wait_procs(children, timeout=15)
    for child in alive:
        child.kill()
    assert alive == []


def committed(settings: Settings, group: str, topic: str) -> int:
    return committed_offsets(settings, group, topic).get(0, (-1, ""))[0]
