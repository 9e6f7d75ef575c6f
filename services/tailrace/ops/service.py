"""The admin API: reads the loop's state, takes requests of people. Loopback only until it has authentication."""

from __future__ import annotations

import threading
import time
from typing import Annotated, Any, Literal

import uvicorn
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from fastapi import Body, FastAPI, Response
from fastapi.responses import HTMLResponse
from prometheus_client import generate_latest

from tailrace.backends.codec import encode
from tailrace.backends.kafka import consumer, partitions_of, producer, to_message
from tailrace.backends.settings import Settings
from tailrace.contracts.records import PromoteRequested, RetrainRequested, RollbackRequested
from tailrace.contracts.topics import Topics
from tailrace.ops.lag import LagWatch
from tailrace.ops.page import PAGE
from tailrace.ops.view import LoopView
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

Reason = Annotated[str, Body(min_length=3, max_length=500, embed=True)]


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Serves the admin API until the service is asked to stop."""
    follower = Follower(settings, LoopView(Topics(use_case.name)), lifecycle)
    follower.start()
    lag = LagWatch(settings, use_case, lifecycle)
    lag.start()
    app = create_app(settings, use_case, follower, lifecycle)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=settings.ops_port, log_level="warning", access_log=False)
    )
    # uvicorn installs its own signal handlers, which would hide the signal from the life cycle.
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    lifecycle.stopping.wait()
    server.should_exit = True
    thread.join(5)
    follower.join(5)
    lag.join(5)


class Follower(threading.Thread):
    """Keeps a `LoopView` up to date from the beginning of its topics."""

    def __init__(self, settings: Settings, view: LoopView, lifecycle: Lifecycle) -> None:
        super().__init__(name="follower", daemon=True)
        self._settings = settings
        self._view = view
        self._lifecycle = lifecycle
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """The view's state as of now."""
        with self._lock:
            return self._view.state()

    def run(self) -> None:
        """Reads until the service stops."""
        reader = consumer(self._settings, "tailrace.reader", **{"group.protocol": "classic", "group.instance.id": ""})
        try:
            reader.assign(
                [
                    TopicPartition(topic, number, 0)
                    for topic in self._view.subscriptions
                    for number in partitions_of(reader, topic)
                ]
            )
            self._lifecycle.ready(True)
            while not self._lifecycle.stopping.is_set():
                for record in reader.consume(1_000, timeout=0.2):
                    error = record.error()
                    if error is None:
                        with self._lock:
                            self._view.apply(to_message(record))
                    elif error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                        raise KafkaException(error)
        finally:
            reader.close()


def create_app(settings: Settings, use_case: UseCase, follower: Follower, lifecycle: Lifecycle) -> FastAPI:
    """The HTTP application."""
    app = FastAPI(title="Tailrace admin API", version="1", docs_url="/docs", redoc_url=None)
    topics = Topics(use_case.name)
    writer = producer(settings)

    def send(request: PromoteRequested | RollbackRequested | RetrainRequested) -> dict[str, str]:
        writer.produce(topics.retraining, encode(request), use_case.name.encode())
        if writer.flush(10):
            return {"status": "not acknowledged by the broker; check it with `tailrace doctor`, then ask again"}
        return {"status": "requested"}

    @app.get("/livez")
    def livez() -> str:
        """Whether the process runs."""
        return "ok"

    @app.get("/readyz")
    def readyz(response: Response) -> str:
        """Whether the topics are being followed."""
        why = lifecycle.not_ready()
        response.status_code = 503 if why else 200
        return why or "ok"

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus metrics of this service."""
        return Response(generate_latest(lifecycle.metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/api/state")
    def state() -> dict[str, Any]:
        """The loop as it stands."""
        return follower.state()

    @app.post("/api/promote/{model_version}", status_code=202)
    def promote(model_version: str, reason: Reason) -> dict[str, str]:
        """Asks to make a registered version champion."""
        return send(
            PromoteRequested(
                use_case=use_case.name, model_version=model_version, by="ops", reason=reason, requested_at_ms=_now_ms()
            )
        )

    @app.post("/api/rollback", status_code=202)
    def rollback(reason: Reason) -> dict[str, str]:
        """Asks to go back to the former champion."""
        return send(RollbackRequested(use_case=use_case.name, by="ops", reason=reason, requested_at_ms=_now_ms()))

    @app.post("/api/retrain", status_code=202)
    def retrain(reason: Reason) -> dict[str, str]:
        """Asks for a new model, trained on what is known at the present stream time."""
        until_ms = follower.state()["watermark_ms"] or _now_ms()
        trigger: Literal["manual"] = "manual"
        return send(
            RetrainRequested(
                run_id=f"{use_case.name}-{trigger}-{until_ms}",
                use_case=use_case.name,
                trigger=trigger,
                reason=reason,
                requested_at_ms=until_ms,
                train_until_ms=until_ms,
                by="ops",
            )
        )

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        """The page for people."""
        return PAGE

    return app


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
