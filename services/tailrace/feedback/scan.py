"""Predictions as columns, without an object for each: what `scan_kernels` finds, put together by the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_records import Arrivals
from tailrace.core.join_table import ACTIVATED, BLOCKED, DECIDED, Cohort
from tailrace.feedback import scan_kernels as kernels

_LENGTHS = np.array([len(name) for name in kernels.FIELDS], np.int64)
_NAMES = np.array([list(name.ljust(_LENGTHS.max(), b"\0")) for name in kernels.FIELDS], np.uint8)
_SCORES = msgspec.json.Decoder(list[float])
_VECTORS = msgspec.json.Decoder(list[list[float | None]])
_Text = TypeVar("_Text", str, bytes)
_TEXT = (kernels.PREDICTION_ID, kernels.EVENT_ID, kernels.KEY, kernels.ENTITIES)


class Scanned(NamedTuple):
    """A batch of predictions: their bytes, one behind the other, and where fields stand, int64 (n, fields, 2)."""

    data: bytes
    spans: NDArray[np.int64]

    @staticmethod
    def of(values: Sequence[bytes | None]) -> Scanned | None:  # hot path
        """Scans predictions; None where one is not as `inference` writes it, and is left to the parser."""
        if None in values:
            return None
        known: Any = values
        data = b"".join(known)
        if b"\\" in data:
            return None
        ends = np.cumsum(np.fromiter(map(len, known), np.int64, len(known)))
        spans = np.empty((len(known), len(kernels.FIELDS), 2), np.int64)
        whole = kernels.scan(np.frombuffer(data, np.uint8), ends, _NAMES, _LENGTHS, spans)
        return Scanned(data, spans) if whole else None

    def arrivals(self) -> Arrivals | None:  # hot path
        """Columns of them; None where a score is no number."""
        data, spans = np.frombuffer(self.data, np.uint8), self.spans
        count = len(spans)
        scores, _ = self._gathered((kernels.SCORE,), b"\0,")
        try:
            score = np.array(_SCORES.decode(b"[" + scores[:-1] + b"]"))
        except msgspec.MsgspecError:
            return None
        texts, text_ends = self._gathered(_TEXT, b"[]")
        ids, id_ends = self._gathered((kernels.EVENT_ID,), b"\0\0")
        times_ms, flags, cohort = np.empty(count, np.int64), np.empty(count, np.uint8), np.empty(count, np.int64)
        kernels.read_times(data, spans, times_ms)
        kernels.read_flags(data, spans, flags, DECIDED, ACTIVATED, BLOCKED)
        firsts = kernels.number_cohorts(data, spans, cohort)
        return Arrivals(
            _parts(ids.decode("ascii"), id_ends, 1),
            _parts(texts, text_ends, 0),
            times_ms,
            score,
            flags,
            [self._cohort(first) for first in firsts.tolist()],
            cohort,
        )

    def vectors(self, places: Sequence[int]) -> list[list[float | None]] | None:
        """Features of some; None where they are no numbers."""
        spans = self.spans[places, kernels.FEATURES].tolist()
        try:
            return _VECTORS.decode(b"[" + b",".join([self.data[first:end] for first, end in spans]) + b"]")
        except msgspec.MsgspecError:
            return None

    def _cohort(self, record: int) -> Cohort:
        fields = (kernels.VARIANT, kernels.VERSION, kernels.SLICES)
        variant, version, slices = (self.data[slice(*self.spans[record, field].tolist())] for field in fields)
        return Cohort(variant[1:-1].decode("ascii"), version[1:-1].decode("ascii"), slices)

    def _gathered(self, fields: Sequence[int], around: bytes) -> tuple[bytes, NDArray[np.int64]]:
        """Some fields of each record between two bytes, of which 0 is none; and where each record ends."""
        chosen = np.array(fields)
        lengths = self.spans[:, chosen, 1] - self.spans[:, chosen, 0]
        out = np.empty(int(lengths.sum()) + len(lengths) * (len(fields) + 1), np.uint8)
        ends = np.empty(len(lengths), np.int64)
        size = kernels.gather(np.frombuffer(self.data, np.uint8), self.spans, chosen, around[0], around[1], out, ends)
        return out[:size].tobytes(), ends


def _parts(whole: _Text, ends: NDArray[np.int64], margin: int) -> list[_Text]:
    """Parts of a text by their ends, without the outermost characters."""
    starts = np.concatenate([[0], ends[:-1]]) + margin
    return [whole[first:end] for first, end in zip(starts.tolist(), (ends - margin).tolist(), strict=True)]
