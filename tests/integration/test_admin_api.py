"""The admin API on a real broker: what it promises in its own schema, and what its actions write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

import tailrace as tr
from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.backends.topics import apply
from tailrace.contracts.quality import Quality
from tailrace.contracts.records import Heartbeat, LabelledPrediction, Prediction, RoutingTable, Source, Variant
from tailrace.contracts.retraining import CandidateRegistered, PromoteRequested, RetrainingRecord, RollbackRequested
from tailrace.contracts.topics import Topics
from tailrace.local.root_cause_report import markdown
from tailrace.ops.api import create_app
from tailrace.ops.auth import Doorkeeper
from tailrace.ops.follower import Follower
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

TOKEN = "t" * 40
RETRAINING: Any = RetrainingRecord


class Payment(tr.Event):
    payment_id: str
    card_id: str
    at_ms: int


class Chargeback(tr.Event):
    payment_id: str
    fraud: bool
    reported_at_ms: int


def use_case(name: str) -> UseCase:
    payments = tr.Topic(f"{name}.payments", Payment, key="card_id", event_time="at_ms")
    chargebacks = tr.Topic(f"{name}.chargebacks", Chargeback, key="payment_id", event_time="reported_at_ms")
    label = tr.Label(chargebacks, on="payment_id", value="fraud", matures_after="1d")
    features = [tr.HourOfDay(), *tr.GroupBy(payments, by="card_id", windows=["1h"]).aggregate(tr.Count())]
    return UseCase(
        name=name, requests=payments, prediction_id="payment_id", features=features, label=label, model=tr.Binary()
    )


class Api:
    """A running API, and its topics to write to."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.topics = Topics(name)
        self.case = use_case(name)
        apply(settings, self.case)
        self._writer = producer(settings)
        self.lifecycle = Lifecycle("ops", name)
        self.follower = Follower(settings, self.case, self.lifecycle)
        self.follower.start()
        self.app = create_app(settings, self.case, self.follower, Doorkeeper({"ana": TOKEN}))
        self.client = TestClient(self.app, headers={"Authorization": f"Bearer {TOKEN}"})
        self.until(lambda: not self.lifecycle.not_ready(), "the topics are followed")

    def close(self) -> None:
        self.lifecycle.stopping.set()
        self.follower.join(10)

    def write(self, topic: str, record: Any) -> None:
        self._writer.produce(topic, encode(record), self.topics.use_case)
        assert 0 == self._writer.flush(10)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, f"not within 30 s: {what}"
            time.sleep(0.05)

    def state(self) -> dict[str, Any]:
        return dict(self.client.get("/api/v1/state").json())

    def requests(self) -> list[Any]:
        return [decode(RETRAINING, m.value) for m in read_topic(self.settings, self.topics.retraining) if m.value]


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    api = Api(settings, f"uc{uuid4().hex[:8]}")
    yield api
    api.close()


def variant(version: str) -> Variant:
    return Variant(
        name="champion", role="champion", model_version=version, bundle_uri="file:///b", digest="sha256:0", share=1.0
    )


def table(name: str, epoch: int, version: str, *warm: str) -> RoutingTable:
    return RoutingTable(
        use_case=name,
        epoch=epoch,
        decided_at_ms=epoch,
        reason="it was best",
        salt="s",
        variants=[variant(version)],
        warm=[variant(one) for one in warm],
        by="ben",
    )


def registered(name: str, version: str) -> CandidateRegistered:
    return CandidateRegistered(
        run_id=f"run-{version}",
        use_case=name,
        model_version=version,
        bundle_uri="file:///b",
        digest="sha256:0",
        registered_at_ms=1,
        gates=[],
        metrics={"log_loss": 0.3},
        lineage={"plan": "p"},
    )


def serve_two_versions(api: Api) -> None:
    name = api.topics.use_case
    for version in ("1", "2"):
        api.write(api.topics.retraining, registered(name, version))
    api.write(api.topics.control, table(name, 2, "2", "1"))
    api.until(lambda: len(api.state()["models"]) == 2 and api.state()["routing"] is not None, "two versions are known")


def test_actions_are_written_with_their_author_and_reason(api: Api) -> None:
    serve_two_versions(api)
    promoted = api.client.post("/api/v1/models/1/promote", json={"reason": "it was better", "epoch": 2})
    rolled_back = api.client.post("/api/v1/rollback", json={"reason": "second thoughts"})
    assert [202, 202] == [promoted.status_code, rolled_back.status_code]
    promote, roll_back = api.requests()[-2:]
    assert isinstance(promote, PromoteRequested)
    assert isinstance(roll_back, RollbackRequested)
    assert ("1", "ana", "it was better") == (promote.model_version, promote.by, promote.reason)
    assert ("ana", "second thoughts") == (roll_back.by, roll_back.reason)


def test_action_on_an_epoch_that_is_no_longer_in_force_is_a_conflict_that_names_who_and_why(api: Api) -> None:
    serve_two_versions(api)
    before = len(api.requests())
    answer = api.client.post("/api/v1/models/1/promote", json={"reason": "better", "epoch": 1})
    assert 409 == answer.status_code
    assert "ben changed it meanwhile (it was best)" in answer.json()["detail"]
    assert before == len(api.requests())


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        ("models/9/promote", {"reason": "why not"}, 404, "'9' is not registered"),
        ("models/2/promote", {"reason": "why not"}, 409, "champion already"),
        ("models/1/promote", {"reason": "x"}, 422, "at least 3 characters"),
        ("retrain", {"reason": "why not"}, 409, "nothing is known to train on"),
    ],
)
def test_action_that_makes_no_sense_is_refused_in_words(
    api: Api, path: str, body: dict[str, str], code: int, words: str
) -> None:
    serve_two_versions(api)
    answer = api.client.post(f"/api/v1/{path}", json=body)
    assert code == answer.status_code
    assert words in answer.text


def test_rollback_without_a_former_champion_is_refused(api: Api) -> None:
    assert 409 == api.client.post("/api/v1/rollback", json={"reason": "why not"}).status_code


@pytest.mark.parametrize(
    "path",
    ["state", "history", "quality", "dead-letters", "trace/x", "root-causes?since_ms=1", "state/stream", "tail/labels"],
)
def test_nothing_is_read_without_a_token(api: Api, path: str) -> None:
    assert 401 == TestClient(api.app).get(f"/api/v1/{path}").status_code


def test_state_says_what_heartbeats_and_quality_say(api: Api) -> None:
    name = api.topics.use_case
    now_ms = time.time_ns() // 1_000_000
    beat = Heartbeat(
        use_case=name,
        service="inference",
        instance="7",
        started_at_ms=now_ms,
        at_ms=now_ms,
        not_ready="no model",
        records=3,
        dead_letters=0,
        restarts=1,
    )
    quality = Quality(
        use_case=name,
        label_name="fraud",
        window_start_ms=0,
        window_end_ms=86_400_000,
        variant="champion",
        model_version="2",
        slice="",
        predictions=10,
        labelled=4,
        final=4,
        maturity=0.4,
        bins=[100, 200],
        n=[2, 2],
        positives=[0, 2],
        metrics={"log_loss": 0.25},
        watermark_ms=77,
    )
    api.write(api.topics.heartbeats, beat)
    api.write(api.topics.quality, quality)
    api.until(lambda: bool(api.state()["workers"]) and bool(api.state()["quality"]), "both are shown")
    state = api.state()
    assert "not ready: no model" == state["workers"][0]["state"]
    assert 77 == state["watermark_ms"]
    assert 0.4 == state["quality"][0]["maturity"]
    assert "bins" not in state["quality"][0]
    merged = api.client.get("/api/v1/quality").json()
    assert ["2", "all"] == [row["version"] for row in merged]
    assert 1.0 == merged[0]["roc_auc"]
    assert api.client.get("/api/v1/quality", params={"since": "1970-01-02"}).json()[0]["predictions"] == 0


def test_lag_is_counted_in_records_and_in_seconds(api: Api) -> None:
    writer = producer(api.settings)
    for number in range(50):
        writer.produce(api.case.requests.name, b"{}", str(number))
    assert 0 == writer.flush(10)
    api.until(lambda: any(stage["lag_records"] == 50 for stage in api.state()["flow"]["stages"]), "50 records of lag")
    api.until(lambda: api.state()["flow"]["stages"][1]["lag_s"] > 1.0, "the backlog ages")
    api.until(lambda: bool(api.client.get("/api/v1/history").json()["features_lag_s"]), "history is kept")


def test_tail_shows_what_comes_after_the_call(api: Api) -> None:
    from tailrace.ops.tail import tail

    name, stopping = api.topics.use_case, threading.Event()
    api.write(api.topics.control, table(name, 1, "1"))
    records = tail(api.settings, api.topics, "control", stopping)
    assert next(records) is None
    api.write(api.topics.control, table(name, 2, "2"))
    deadline = time.monotonic() + 30
    epochs = []
    while not epochs and time.monotonic() < deadline:
        record = next(records)
        epochs += [record["epoch"]] if record else []
    assert [2] == epochs
    stopping.set()


@pytest.mark.timeout(200)
def test_nothing_fails_and_nothing_is_undocumented(api: Api) -> None:
    """Requests made up from the API's own schema, good and bad; streams are left out, they have no end."""
    serve_two_versions(api)
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", api.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    tried = [one for one in operations if not one.path.endswith("/stream") and "/tail/" not in one.path]
    assert (15, 13) == (len(operations), len(tried))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for operation in tried:
        for mode in GenerationMode:

            @hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(operation.as_strategy(mode))
            def check(case: schemathesis.Case) -> None:
                case.call_and_validate(headers=headers)

            with suppress(Unsatisfiable):  # what takes no input cannot be given bad input
                check()


def served(api: Api, number: int, *, degraded: bool) -> Prediction:
    return Prediction(
        prediction_id=f"p{number}:champion",
        event_id=f"p{number}",
        use_case=api.topics.use_case,
        key="c",
        entities={},
        slices={},
        event_time_ms=number,
        predicted_at_ms=0,
        variant="champion",
        model_version="1",
        model_digest="",
        epoch=1,
        score=0.25,
        decision=False,
        threshold=0.5,
        propensity=1.0,
        features=[float(number % 24), None],
        ages_ms={},
        fingerprint=api.case.plan.fingerprint,
        degraded=["card_stats"] if degraded else [],
        source=Source(topic="s", partition=0, offset=number),
        produced_at_ms=0,
    )


def judged(of: Prediction, *, label: bool) -> LabelledPrediction:
    return LabelledPrediction(
        prediction_id=of.prediction_id,
        event_id=of.event_id,
        use_case=of.use_case,
        label_name="fraud",
        label_version=1,
        label=float(label),
        status="final",
        reason="outcome",
        event_time_ms=of.event_time_ms,
        known_at_ms=of.event_time_ms,
        outcome_time_ms=None,
        variant=of.variant,
        model_version=of.model_version,
        score=of.score,
        decision=of.decision,
        key=of.key,
        entities={},
        slices={},
    )


def test_rise_of_the_loss_is_put_down_to_what_broke(api: Api) -> None:
    for number in range(1_200):
        degraded = number >= 600 and number % 3 == 0
        prediction = served(api, number, degraded=degraded)
        api.write(api.topics.predictions, prediction)
        api.write(api.topics.labels, judged(prediction, label=degraded or number % 4 == 1))
    found = api.client.get("/api/v1/root-causes", params={"since_ms": 600}).json()
    assert (found["problem"], found["judged_before"], found["judged_now"]) == ("", 600, 600)
    first = found["causes"][0]
    assert first["conditions"] == [{"column": "degraded", "value": "card_stats"}]
    assert {int(name.removeprefix("p").removesuffix(":champion")) % 3 for name in first["examples"]} == {0}
    assert "`degraded` card_stats" in markdown("uc", found)


def test_rise_of_the_loss_is_not_explained_from_too_few_labels(api: Api) -> None:
    found = api.client.get("/api/v1/root-causes", params={"since_ms": 600}).json()
    assert "needs 200 judged predictions" in found["problem"]
    assert "Nothing can be said" in markdown("uc", found)
