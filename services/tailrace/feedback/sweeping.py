"""Taking erased predictions out of records of the changelog that were written while they were there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.outcome_table import OutcomeTable
from tailrace.errors import StateCorrupt
from tailrace.feedback.batches import Added, Batch, Reported

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Batch)


class Sweep:
    """Finds the batches of one label that tell of erased predictions, and how they read without them.

    Batches never change but by a sweep, so that one may run beside the worker.

    Args:
        batch: What keys of batches begin with.
        noted: Key of the record that says what was erased.
        serials: int64 (n,), serial numbers of what was erased, ascending.
    """

    def __init__(self, batch: bytes, noted: bytes, serials: Rows) -> None:
        self._batch = batch
        self._noted = noted
        self._seen: bytes | None = None
        self.serials = serials
        self.rewritten: dict[bytes, bytes] = {}

    @property
    def is_whole(self) -> bool:
        """Whether the topic held all that tells of what was erased: the note was committed after the last of it."""
        return self._seen == self.serials.tobytes()

    def take(self, key: bytes, value: bytes | None) -> None:
        """Takes a record of the topic, in its order.

        Raises:
            msgspec.MsgspecError: it cannot be read.
        """
        if key == self._noted:
            self._seen = value
        elif key.startswith(self._batch):
            self.rewritten.pop(key, None)
            kept = without(_DECODER.decode(value), self.serials) if value is not None else None
            if kept is not None:
                self.rewritten[key] = _ENCODER.encode(kept)


def swept(
    topic: str, read: Callable[[], Iterable[tuple[bytes, bytes | None]]], sweeps: list[Sweep | None]
) -> list[Sweep | None]:
    """The sweeps of some labels, once they have gone over their topic.

    Raises:
        StateCorrupt: a record cannot be read.
    """
    try:
        for key, value in read():
            for sweep in sweeps:
                if sweep is not None:
                    sweep.take(key, value)
    except msgspec.MsgspecError as error:
        raise StateCorrupt(f"{topic} holds a record this release cannot read ({error})") from error
    return sweeps


def without(batch: Batch, serials: Rows) -> Batch | None:
    """A batch as if some predictions had never been, by serial number; None where it tells nothing of them.

    That they are gone it still tells: it keeps their numbers from being used again.
    """
    touched = _left(batch.touched, serials)
    added = _left(batch.added.serial, serials) if batch.added is not None else None
    reported = _left(batch.reported.serial, serials) if batch.reported is not None else None
    if all(left is None or left.all() for left in (touched, added, reported)):
        return None
    return Batch(
        batch.expires_ms,
        _added(batch.added, added) if batch.added is not None and added is not None else None,
        np.frombuffer(batch.touched, np.int64)[touched].tobytes(),
        _columns(batch.columns, JoinTable(), touched),
        batch.gone,
        _reported(batch.reported, reported) if batch.reported is not None and reported is not None else None,
    )


def _left(serial: bytes, serials: Rows) -> NDArray[np.bool_]:
    return ~np.isin(np.frombuffer(serial, np.int64), serials)


def _columns(columns: dict[str, bytes], kinds: Any, left: NDArray[np.bool_]) -> dict[str, bytes]:
    return {name: np.frombuffer(data, getattr(kinds, name).dtype)[left].tobytes() for name, data in columns.items()}


def _added(added: Added, left: NDArray[np.bool_]) -> Added | None:
    if not left.any():
        return None
    lengths = np.frombuffer(added.lengths, np.int32)
    ends = np.cumsum(lengths)
    return Added(
        serial=np.frombuffer(added.serial, np.int64)[left].tobytes(),
        columns=_columns(added.columns, JoinTable(), left),
        cohort=np.frombuffer(added.cohort, np.int32)[left].tobytes(),
        cohorts=added.cohorts,
        lengths=lengths[left].tobytes(),
        texts=b"".join(added.texts[end - size : end] for end, size in zip(ends[left], lengths[left], strict=True)),
    )


def _reported(reported: Reported, left: NDArray[np.bool_]) -> Reported | None:
    if not left.any():
        return None
    ids = [reported.ids[at] for at in np.flatnonzero(left).tolist()]
    return Reported(
        np.frombuffer(reported.serial, np.int64)[left].tobytes(), ids, _columns(reported.columns, OutcomeTable(), left)
    )
