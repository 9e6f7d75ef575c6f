"""Who may do what on Kafka: one row per user, from which ACLs, docs/security.md and tests are made.

The complement is forbidden: a broker with an authorizer refuses whatever no row allows.
Records of the user's watermarks travel in the topics they speak of and need no right of their own.
Faust makes no topic of its own here: its leader topic and its declarations are off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from tailrace.contracts.topics import AUDIT, READERS, Topics

PREFIX = "tailrace-"
"""What a user's name has before the row's: `tailrace-inference`. Another prefix keeps use cases apart."""

Stream = Literal[
    "requests",
    "outcomes",
    "features",
    "features_changelog",
    "predictions",
    "shadow",
    "labels",
    "feedback_changelog",
    "join_changelog",
    "observations",
    "quality",
    "drift",
    "alarms",
    "retraining",
    "control",
    "dead_letters",
    "heartbeats",
    "audit",
]
"""The topics of a use case: the user's two, then Tailrace's own, by their names in `Topics`."""

Principal = Literal[
    "features", "inference", "feedback", "trainer", "rollout", "ops", "producer", "labeller", "app", "auditor"
]
"""The six services, then who stands outside: writes events, writes outcomes, uses predictions, recounts."""

Operation = Literal["READ", "WRITE", "DESCRIBE"]
"""Kafka's names. READ and WRITE each allow DESCRIBE too."""

Kind = Literal["topic", "group", "transactional id"]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may do.

    Attributes:
        reads: Topics it may read.
        writes: Topics it may write.
        group: Whether it commits offsets, as group `tailrace.<use case>.<user>`.
        replays: Whether it also reads topics from their beginning, as nobody's group.
        transactional: Prefix of its transactional ids, behind `tailrace.<use case>.`; "" for none.
        watches: Services whose committed offsets it may see.
        samples: Topics it also reads where feedback is parallel, to see how they are keyed.
        note: Why, where the topics do not say it.
    """

    reads: tuple[Stream, ...] = ()
    writes: tuple[Stream, ...] = ()
    group: bool = False
    replays: bool = False
    transactional: str = ""
    watches: tuple[Principal, ...] = ()
    samples: tuple[Stream, ...] = ()
    note: str = ""


_PARALLEL: tuple[Stream, ...] = ("join_changelog", "observations")
_PRIVATE: tuple[Stream, ...] = ("features_changelog", "feedback_changelog", *_PARALLEL)
_PUBLIC: tuple[Stream, ...] = tuple(stream for stream in get_args(Stream) if stream not in _PRIVATE)
_CONSUMERS: tuple[Principal, ...] = ("features", "inference", "feedback", "trainer", "rollout")

MATRIX: dict[Principal, Access] = {
    "features": Access(
        reads=("requests", "labels", "features_changelog"),
        writes=("features", "features_changelog", "heartbeats"),
        group=True,
        replays=True,
        note="Labels for features made of outcomes. Bad records go to inference, which dead-letters them.",
    ),
    "inference": Access(
        reads=("features", "control"),
        writes=("predictions", "shadow", "dead_letters", "heartbeats"),
        group=True,
        replays=True,
        transactional="inference",
        note="One transactional id per worker.",
    ),
    "feedback": Access(
        reads=("predictions", "shadow", "outcomes", "retraining", "control", "feedback_changelog", *_PARALLEL),
        writes=(
            "labels",
            "quality",
            "drift",
            "alarms",
            "retraining",
            "dead_letters",
            "feedback_changelog",
            *_PARALLEL,
            "heartbeats",
        ),
        group=True,
        replays=True,
        transactional="feedback",
        samples=("requests",),
        note="Requests, tasks and observations only where it is parallel: each worker then has a transactional id, and "
        "the monitor a group of its own.",
    ),
    "trainer": Access(
        reads=("retraining", "predictions", "labels", "control"),
        writes=("retraining", "heartbeats"),
        group=True,
        replays=True,
        note="It proposes; only rollout decides what serves.",
    ),
    "rollout": Access(
        reads=("retraining", "quality", "control", "audit"),
        writes=("control", "audit", "heartbeats"),
        group=True,
        replays=True,
        transactional="rollout",
    ),
    "ops": Access(
        reads=_PUBLIC,
        writes=("requests", "outcomes", "features", "retraining", "dead_letters", "heartbeats"),
        replays=True,
        transactional="dead-letters",
        watches=_CONSUMERS,
        note="Sends dead letters again to where they came from, and shows everything but private state.",
    ),
    "producer": Access(writes=("requests",)),
    "labeller": Access(writes=("outcomes",)),
    "app": Access(reads=("predictions",), group=True, note="Its groups may have any ending."),
    "auditor": Access(
        reads=_PUBLIC,
        replays=True,
        watches=_CONSUMERS,
        note="For `tailrace audit`, `tailrace status`, and scaling on lag.",
    ),
}
"""The access matrix. What is not here is refused."""


class Grant(msgspec.Struct, frozen=True, order=True):
    """One right: an ACL without its host, which is any.

    Attributes:
        kind: Kind of resource.
        name: Its name, or what its name begins with.
        operation: What is allowed.
        prefixed: Whether `name` is a beginning.
    """

    kind: Kind
    name: str
    operation: Operation
    prefixed: bool = False


class Streams(msgspec.Struct, frozen=True):
    """Names of all topics of a use case.

    Args:
        use_case: Its name.
        requests: Topic of its events.
        outcomes: Topic of its outcomes.
        more_outcomes: Topics of what auxiliary labels are made of, where they have topics of their own.
        parallel: Whether several workers of feedback share the joins.
    """

    use_case: str
    requests: str
    outcomes: str
    more_outcomes: tuple[str, ...] = ()
    parallel: bool = False

    def topics(self, stream: Stream) -> tuple[str, ...]:
        """Names of the topics of a stream; none where the use case has no such topic."""
        if stream in _PARALLEL and not self.parallel:
            return ()
        match stream:
            case "requests":
                return (self.requests,)
            case "outcomes":
                return (self.outcomes, *self.more_outcomes)
            case "audit":
                return (AUDIT,)
            case _:
                return (str(getattr(Topics(self.use_case), stream)),)


def grants(principal: Principal, streams: Streams) -> list[Grant]:
    """Every right of a user on one use case, topics first."""
    return list(_grants(principal, MATRIX[principal], streams))


def _grants(principal: Principal, access: Access, streams: Streams) -> Iterator[Grant]:
    for stream in (*access.reads, *(access.samples if streams.parallel else ())):
        yield from (Grant("topic", name, "READ") for name in streams.topics(stream))
    for stream in access.writes:
        yield from (Grant("topic", name, "WRITE") for name in streams.topics(stream))
    group = Topics(streams.use_case).group
    # People name their applications' groups; ours have one name each, but for feedback that is parallel.
    several = {"app", "feedback"} if streams.parallel else {"app"}
    if access.group:
        yield Grant("group", group(principal), "READ", prefixed=principal in several)
    if access.replays:
        yield Grant("group", READERS, "DESCRIBE")
    for watched in access.watches:
        yield Grant("group", group(watched), "DESCRIBE", prefixed=watched in several)
    if access.transactional:
        yield Grant("transactional id", group(access.transactional), "WRITE", prefixed=True)
