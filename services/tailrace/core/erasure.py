"""Which predictions are of entities that are to be erased."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.retraining import EraseRequested

_READ: Final = 10_000
"""Texts that are decoded at once: more, and the garbage collector is kept busy with them."""


Asked = Callable[[Sequence[bytes], NDArray[np.int64]], NDArray[np.bool_]]
"""Which events are asked for, bool (n,), by the texts of their first predictions and the times of these, int64 (n,)."""


class _Entities(msgspec.Struct, array_like=True, gc=False):
    """As much of a `Text` as tells whose it is."""

    prediction_id: msgspec.Raw
    event_id: msgspec.Raw
    key: msgspec.Raw
    entities: dict[str, str]


_TEXTS = msgspec.json.Decoder(list[_Entities])
_ENTITIES = msgspec.json.Decoder(list[dict[str, str]])


def asked_by(
    requests: Sequence[EraseRequested], texts: Sequence[bytes], times_ms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Which request asks for each of some predictions.

    Args:
        requests: What is to be erased.
        texts: n, a `Text` as a JSON array each.
        times_ms: int64 (n,), times of their events, epoch milliseconds.

    Returns:
        int64 (n,), the place of the first of the requests that asks for it; -1 where none does.
    """
    wanted = _by_name(requests)
    found = np.full(len(texts), -1, np.int64)
    for start in range(0, len(texts), _READ):
        read = [text.entities for text in _TEXTS.decode(b"[" + b",".join(texts[start : start + _READ]) + b"]")]
        found[start : start + _READ] = _places(requests, wanted, read, times_ms[start : start + _READ])
    return found


def asked_by_entities(
    requests: Sequence[EraseRequested], entities: Sequence[bytes], times_ms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The same of predictions whose entities, n JSON objects of texts, are at hand."""
    wanted = _by_name(requests)
    found = np.full(len(entities), -1, np.int64)
    for start in range(0, len(entities), _READ):
        read = _ENTITIES.decode(b"[" + b",".join(entities[start : start + _READ]) + b"]")
        found[start : start + _READ] = _places(requests, wanted, read, times_ms[start : start + _READ])
    return found


def digest_of(entity: str, value: str) -> str:
    """What stands for an entity in the audit trail, which keeps no name of one for ever: SHA-256, hexadecimal.

    Whoever knows the value can find it again: it is a pseudonym and not anonymous.
    """
    return hashlib.sha256(f"{entity}={value}".encode()).hexdigest()


def _by_name(requests: Sequence[EraseRequested]) -> dict[tuple[str, str], list[int]]:
    places: dict[tuple[str, str], list[int]] = {}
    for place, request in enumerate(requests):
        places.setdefault((request.entity, request.value), []).append(place)
    return places


def _places(
    requests: Sequence[EraseRequested],
    wanted: dict[tuple[str, str], list[int]],
    entities: Sequence[dict[str, str]],
    times_ms: NDArray[np.int64],
) -> list[int]:
    found = []
    for named, time_ms in zip(entities, times_ms.tolist(), strict=True):
        places = [place for entity in named.items() for place in wanted.get(entity, ())]
        found.append(min((place for place in places if time_ms <= requests[place].before_ms), default=-1))
    return found
