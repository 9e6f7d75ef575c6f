"""What the services need from outside systems, as Protocols. `memory` implements every one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Headers = list[tuple[str, bytes]]


class Message(NamedTuple):
    """A record as consumed."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Output(NamedTuple):
    """A record to produce. `partition` None lets the key decide."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = []  # noqa: RUF012  # a NamedTuple's default; nobody appends to it


class Assigned(NamedTuple):
    """A partition handed to a processor, with the committed offset (-1: none) and its metadata.

    `waiting` says that records stood behind that offset when it was handed over: they will come, if in any order
    with those of other partitions.
    """

    topic: str
    partition: int
    offset: int
    metadata: str
    waiting: bool = False


class Processor(Protocol):
    """The core of a transactional service: records in, records out, no Kafka.

    `runtime.loop` drives it. The loop guarantees: outputs of a batch, and the commit of its offsets
    with `metadata`, become visible together or not at all. After an abort it calls `revoked` and
    `assigned` again with what is committed, so everything a processor keeps must be rebuilt from
    there. Calls come from one thread.
    """

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Takes over partitions; restores what is kept for them. Blocking is allowed."""

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets partitions; what was processed is committed already or will be processed again."""

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Processes one micro-batch, in order within each partition.

        Args:
            batch: Up to a few thousand records, or none: called at least every 100 ms.
            now_ms: Wall clock, for latency and back-off only.

        Raises:
            Retryable: nothing of the batch was kept; the loop aborts, backs off and comes again.
        """

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Which partitions are at their end; told after each batch, in the place of what was told before.

        All that was written to one when it was told has been processed. The others may hold records that will come.
        """

    def metadata(self, topic: str, partition: int) -> str:
        """Commit metadata for a partition, at most 4 kB; read back by `assigned` and by operators."""

    def unsettled(self) -> bool:
        """True while `metadata` must be committed although no record came (a new epoch, say)."""


class Rows(NamedTuple):
    """Rows of one view for a batch of keys.

    `values` float64 (n, d) in column order of the view, NaN where missing; `timestamps_ms` int64
    (n,), -1 where the key has no row; `state` holds the view's packed state per key, None where absent.
    """

    values: NDArray[np.float64]
    timestamps_ms: NDArray[np.int64]
    state: Sequence[bytes | None]


class ReadRequest(NamedTuple):
    """Which rows to read: the keys of one view. Keys may repeat."""

    view: str
    entity: str
    columns: Sequence[str]
    keys: Sequence[str]


class OnlineStore(Protocol):
    """Latest feature row per key, in the byte format of Feast's Redis online store."""

    def write(
        self,
        view: str,
        entity: str,
        columns: Sequence[str],
        keys: Sequence[str],
        values: NDArray[np.float64],
        timestamps_ms: NDArray[np.int64],
        state: Sequence[bytes] | None = None,
    ) -> None:
        """Writes rows, acknowledged on return; a key's last occurrence wins.

        Raises:
            StoreUnavailable: nothing can be said about the rows; write them again.
        """

    def read(self, requests: Sequence[ReadRequest]) -> list[Rows]:
        """Reads all requests in one round trip, each in the order of its keys.

        Raises:
            StoreUnavailable: the store did not answer within its time-out.
        """

    def ask(self, requests: Sequence[ReadRequest]) -> Callable[[], list[Rows]]:
        """`read` in two steps: asks now, and gives the call that waits for the answer, to be made once.

        Between the two the store works while the caller does something else. Both steps raise as `read` does.
        """


class Executor(Protocol):
    """Runs one model."""

    def warm(self, rows: int) -> None:
        """Runs dummy batches up to `rows` so that the first real one is fast."""

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores float32 (n, d) in plan order, NaN = missing; returns float64 (n,) in [0, 1].

        Raises:
            ArtifactInvalid: the model does not fit the matrix or gives no probabilities.
        """


DIGEST_TAG = "tailrace.digest"
"""Entry of a version's lineage: digest of its bundle."""


class RegisteredModel(NamedTuple):
    """A version in the model registry."""

    version: str
    run_id: str
    bundle_uri: str
    digest: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    created_at_ms: int


class Registry(Protocol):
    """Versions of the models of a use case and the aliases champion, shadow and former."""

    def register(
        self, use_case: str, run_id: str, bundle: str, metrics: Mapping[str, float], lineage: Mapping[str, str]
    ) -> RegisteredModel:
        """Stores a bundle directory and makes a version of it. The same `run_id` gives the same version."""

    def alias(self, use_case: str, name: str, version: str) -> None:
        """Points an alias at a version."""

    def models(self, use_case: str) -> list[RegisteredModel]:
        """All versions, newest first."""
