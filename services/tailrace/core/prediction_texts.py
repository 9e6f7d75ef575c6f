"""The text of predictions that the join keeps, as JSON, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec


class Text(NamedTuple):
    """The text of a prediction; `key` and `entities` are JSON, `amount` is the money at stake where it is known."""

    prediction_id: str
    event_id: str
    key: msgspec.Raw
    entities: msgspec.Raw
    amount: float = 0.0


class _Names(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a `Text`: a third of the time, and nothing for the garbage collector to walk through."""

    prediction_id: msgspec.Raw
    event_id: str


_TEXTS = msgspec.json.Decoder(list[Text])
_NAMES = msgspec.json.Decoder(list[_Names])


def read_texts(texts: Sequence[bytes]) -> list[Text]:
    """Texts from their JSON arrays."""
    return _TEXTS.decode(b"[" + b",".join(texts) + b"]")


def event_ids(texts: Sequence[bytes]) -> list[str]:  # hot path
    """Ids of the events of texts."""
    return [names.event_id for names in _NAMES.decode(b"[" + b",".join(texts) + b"]")]
