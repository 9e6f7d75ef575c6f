"""The admin API: what the command line and the console read and ask for, and nothing else does."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.middleware.base import RequestResponseEndpoint

from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import TailraceError
from tailrace.ops.actions import Actions
from tailrace.ops.auth import COOKIE, SESSION_S, Doorkeeper
from tailrace.ops.dead_letters import held_by_reason, inspect
from tailrace.ops.follower import Follower
from tailrace.ops.quality import quality_between
from tailrace.ops.root_causes import root_causes
from tailrace.ops.tail import CHANNELS, tail
from tailrace.ops.trace import trace
from tailrace.usecase.declaration import UseCase

EVERY_S = 1.0
"""How often a page that watches is sent a snapshot."""
POLICY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Id = Annotated[str, Path(min_length=1, max_length=200)]
Channel = Literal["features", "predictions", "shadow", "labels", "quality", "drift", "alarms", "retraining", "control"]
assert CHANNELS == Channel.__args__  # type: ignore[attr-defined]  # the typing module does not declare it


class Action(BaseModel):
    """What every action needs."""

    reason: str = Field(min_length=3, max_length=500, description="Why; it stands in the audit trail.")


class Rollout(Action):
    """A change of what serves."""

    epoch: int | None = Field(
        default=None, ge=0, le=2**53, description="Epoch it is based on; another one in force is a conflict."
    )


class Replay(Action):
    """Dead letters to send again."""

    code: str = Field(default="", max_length=100, description="Only letters with this reason code; empty for all.")


class Erase(Action):
    """An entity of which nothing is to be kept."""

    entity: str = Field(min_length=1, max_length=200, description="Its column.")
    value: str = Field(min_length=1, max_length=1_000, description="Which one.")


class Problem(BaseModel):
    """Why a request was refused, and what to do next."""

    detail: str


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem} for code in codes}


def create_app(settings: Settings, use_case: UseCase, follower: Follower, door: Doorkeeper) -> FastAPI:
    """The HTTP application: API, console, nothing that needs no token but the page itself."""
    app = FastAPI(
        title="Tailrace admin API",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.include_router(_reads(settings, use_case, follower, door))
    app.include_router(_actions(settings, use_case, follower, door))
    app.include_router(_sessions(door))

    @app.exception_handler(TailraceError)
    def unavailable(_: Request, error: TailraceError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)

    @app.middleware("http")
    async def policy(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.update(POLICY)
        return response

    app.mount("/", StaticFiles(directory=str(files("tailrace.ops") / "console"), html=True))
    return app


def _reads(settings: Settings, use_case: UseCase, follower: Follower, door: Doorkeeper) -> APIRouter:
    gates = [Depends(door.who), Depends(_followed(follower))]
    api = APIRouter(prefix="/api/v1", dependencies=gates, responses=_problems(401, 403, 503))
    topics = Topics(use_case.name)

    @api.get("/state")
    def state() -> dict[str, Any]:
        """Everything the console shows, as of now."""
        return follower.snapshot()

    @api.get("/state/stream", response_class=EventSourceResponse)
    async def state_stream(request: Request) -> AsyncIterator[ServerSentEvent]:
        """The same, every second, as server-sent events."""
        while not await request.is_disconnected():
            yield ServerSentEvent(raw_data=json.dumps(await asyncio.to_thread(follower.snapshot)), event="state")
            await asyncio.sleep(EVERY_S)

    @api.get("/history")
    def history() -> dict[str, list[Any]]:
        """Rates, lags and latency of the last two hours, as columns."""
        return follower.history()

    @api.get("/quality")
    def quality(
        since: Annotated[dt.date, Query(description="First day of event time, UTC.")] = dt.date(1970, 1, 1),
        until: Annotated[dt.date, Query(description="First day no longer counted.")] = dt.date(9999, 1, 1),
        variant: Literal["champion", "shadow", "canary", "default"] = "champion",
    ) -> list[dict[str, Any]]:
        """Live metrics per version and over all versions, merged exactly."""
        return quality_between(settings, topics, since, until, variant)

    @api.get("/trace/{event_id}")
    def trace_event(event_id: Id) -> dict[str, Any]:
        """One event from its id to its outcome; takes seconds on large topics."""
        return trace(settings, use_case, event_id)

    @api.get("/root-causes")
    def causes(
        since_ms: Annotated[
            int, Query(description="Event time the rise began at, epoch milliseconds.", ge=0, lt=2**63)
        ],
    ) -> dict[str, Any]:
        """What explains the rise of the log loss since a time; takes seconds on large topics."""
        return root_causes(settings, use_case, since_ms)

    @api.get("/dead-letters")
    def dead_letters() -> list[dict[str, Any]]:
        """Dead letters that have not been sent again, counted by stage and reason, with an example each."""
        return held_by_reason(settings, topics)

    @api.get("/dead-letters/{partition}/{offset}", responses=_problems(404))
    def dead_letter(
        partition: Annotated[int, Path(ge=0, lt=2**31)], offset: Annotated[int, Path(ge=0, lt=2**63)]
    ) -> dict[str, Any]:
        """One dead letter with the bytes that could not be used."""
        found = inspect(settings, topics, partition, offset)
        if found is None:
            raise HTTPException(404, f"there is no dead letter at {topics.dead_letters}[{partition}]@{offset}")
        return found

    @api.get("/tail/{channel}", response_class=EventSourceResponse)
    def tail_channel(channel: Channel) -> Iterator[ServerSentEvent]:
        """New records of a topic as they come, as server-sent events."""
        stopping = threading.Event()
        try:
            for record in tail(settings, topics, channel, stopping):
                if record is None:
                    yield ServerSentEvent(comment="nothing new")
                else:
                    yield ServerSentEvent(raw_data=json.dumps(record), event=channel)
        finally:
            stopping.set()

    return api


def _actions(settings: Settings, use_case: UseCase, follower: Follower, door: Doorkeeper) -> APIRouter:
    gates = [Depends(_followed(follower))]
    api = APIRouter(prefix="/api/v1", dependencies=gates, responses=_problems(400, 401, 403, 503))
    actions = Actions(settings, Topics(use_case.name))
    caller = Depends(door.who)

    def check(body: Rollout) -> None:
        table = follower.view.routing
        in_force = table.epoch if table is not None else 0
        if body.epoch is not None and body.epoch != in_force:
            by, why = (table.by, table.reason) if table is not None else ("", "")
            raise HTTPException(
                409,
                f"epoch {in_force} is in force, not {body.epoch}: {by} changed it meanwhile ({why}); look again, then "
                "repeat what still makes sense",
            )

    @api.post("/models/{version}/promote", status_code=202, responses=_problems(404, 409))
    def promote(version: Id, body: Rollout, who: str = caller) -> dict[str, str]:
        """Asks to make a registered version champion; the former one stays warm."""
        check(body)
        table = follower.view.routing
        if version not in follower.view.versions:
            raise HTTPException(404, f"version {version!r} is not registered; GET /api/v1/state lists those that are")
        if table is not None and table.variants[0].model_version == version:
            raise HTTPException(409, f"version {version} is champion already")
        actions.promote(version, who, body.reason)
        return {"status": "requested", "by": who}

    @api.post("/rollback", status_code=202, responses=_problems(409))
    def roll_back(body: Rollout, who: str = caller) -> dict[str, str]:
        """Asks to go back to the former champion, which is still loaded."""
        check(body)
        table = follower.view.routing
        if table is None or not table.warm:
            raise HTTPException(409, "there is no former champion to return to")
        actions.roll_back(who, body.reason)
        return {"status": "requested", "by": who}

    @api.post("/retrain", status_code=202, responses=_problems(409))
    def retrain(body: Action, who: str = caller) -> dict[str, str]:
        """Asks for a new model, trained on what is known at the present stream time."""
        until_ms = follower.view.watermark_ms
        if until_ms is None:
            raise HTTPException(409, "nothing is known to train on: no quality has been reported yet")
        return {"status": "requested", "by": who, "run_id": actions.retrain(who, body.reason, until_ms)}

    @api.post("/dead-letters/replay")
    def replay_dead_letters(body: Replay, who: str = caller) -> dict[str, int]:
        """Sends dead letters to the topics they came from, byte for byte and once."""
        return {"sent": actions.replay_dead_letters(who, body.reason, body.code)}

    @api.post("/erase", status_code=202, responses=_problems(404, 409))
    def erase(body: Erase, who: str = caller) -> dict[str, Any]:
        """Asks that what is kept of an entity be erased, of events up to the newest prediction."""
        known = use_case.plan.entities
        if body.entity not in known:
            raise HTTPException(
                404, f"there is no entity {body.entity!r}; those of this use case are {', '.join(known)}"
            )
        if use_case.parallel_feedback:
            raise HTTPException(
                409,
                "feedback of this use case is parallel, and what its tasks keep cannot be erased; take `parallel_feedback` "
                "out of the declaration, or see docs/erasure.md for when it goes by itself",
            )
        before_ms = actions.erase(body.entity, body.value, who, body.reason)
        if before_ms is None:
            raise HTTPException(409, "there is nothing to erase: no prediction has been made yet")
        return {"status": "requested", "by": who, "before_ms": before_ms}

    return api


def _followed(follower: Follower) -> Callable[[], None]:
    """A dependency: nothing is said before the topics have been read once, since it would be wrong."""

    def check() -> None:
        if not follower.caught_up:
            raise HTTPException(503, "still reading the topics from their beginning; ask again", {"Retry-After": "1"})

    return check


def _sessions(door: Doorkeeper) -> APIRouter:
    api = APIRouter(prefix="/api/v1", responses=_problems(401))

    @api.post("/session", status_code=204)
    def open_session(response: Response, authorization: Annotated[str, Header()] = "") -> None:
        """Exchanges a bearer token for the cookie that the console works with."""
        name = door.holder(authorization.removeprefix("Bearer ").strip())
        if name is None:
            raise HTTPException(401, "no valid token; open the address that `tailrace console` prints")
        response.set_cookie(COOKIE, door.open_session(name), SESSION_S, httponly=True, samesite="strict")

    return api
