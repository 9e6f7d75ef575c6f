"""Recounting what the topics hold: nothing lost, nothing doubled, windows counted once.

Every check is a pure function over arrays that gives findings; no finding means it holds. They know
nothing of the code they judge: a window is counted here by looking up every event of its key again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Problem = Literal["hole", "double", "mismatch"]
MAX_EXAMPLES = 10
"""Findings name so many places; a report of a million is not read."""

Ints = NDArray[np.int64]


class Finding(msgspec.Struct, frozen=True):
    """Something that must not be. `examples` names up to ten of the `count` places."""

    check: str
    problem: Problem
    count: int
    examples: tuple[str, ...]


class Positions(msgspec.Struct, frozen=True):
    """Places in a topic: `partitions` int64 (n,) and `offsets` int64 (n,), in any order."""

    partitions: Ints
    offsets: Ints

    @property
    def codes(self) -> Ints:
        """One number per place, int64 (n,), ascending as (partition, offset) is."""
        return self.partitions * OFFSETS + self.offsets

    @staticmethod
    def of(codes: Ints) -> Positions:
        """The places of codes."""
        return Positions(codes // OFFSETS, codes % OFFSETS)


OFFSETS = 1 << 44
"""Room for offsets in a code: 17 trillion records per partition, 500,000 partitions."""


def audit_events(topic: str, events: Positions, predicted: Positions, dead: Positions) -> list[Finding]:
    """Every event ends as exactly one of prediction and dead letter.

    Args:
        topic: Events topic, for the examples.
        events: Its records, watermark records left out.
        predicted: Source of every prediction.
        dead: Source of every dead letter that stems from the topic.
    """
    ends = np.concatenate([predicted.codes, dead.codes])
    ended, times = np.unique(ends, return_counts=True)
    holes = np.setdiff1d(events.codes, ended)
    strangers = np.setdiff1d(ended, events.codes)
    return [
        *_finding("events without prediction or dead letter", "hole", holes, _place(topic)),
        *_finding("events with more than one prediction or dead letter", "double", ended[times > 1], _place(topic)),
        *_finding("predictions or dead letters of no event", "mismatch", strangers, _place(topic)),
    ]


def audit_identity(
    topic: str, events: Positions, ids: NDArray[np.bytes_], predicted: Positions, predicted_ids: NDArray[np.bytes_]
) -> list[Finding]:
    """A prediction bears the id of the event it stems from.

    Args:
        topic: Events topic, for the examples.
        events: Events that could be read, n of them.
        ids: Their ids, bytes (n,).
        predicted: Source of every prediction, m of them.
        predicted_ids: Their event ids, bytes (m,).
    """
    codes = events.codes
    order = np.argsort(codes)
    at = np.searchsorted(codes[order], predicted.codes)
    known = at < len(codes)
    known[known] = codes[order][at[known]] == predicted.codes[known]
    wrong = np.zeros(len(known), np.bool_)
    wrong[known] = ids[order][at[known]] != predicted_ids[known]
    return _finding("predictions with another event's id", "mismatch", predicted.codes[wrong], _place(topic))


def audit_labels(prediction_ids: NDArray[np.bytes_], versions: Ints, known_ids: NDArray[np.bytes_]) -> list[Finding]:
    """Each prediction's label versions count up by one, and each belongs to a prediction.

    Since the highest version holds, this also means that one value at most is in force.

    Args:
        prediction_ids: bytes (n,), one per label record.
        versions: int64 (n,).
        known_ids: bytes (m,), ids of all predictions, shadows included.
    """
    if not len(versions):
        return []
    distinct, code = np.unique(prediction_ids, return_inverse=True)
    order = np.lexsort((versions, code))
    code, version = code[order], versions[order]
    first = np.concatenate([[True], code[1:] != code[:-1]])
    step = np.where(first, 1, np.diff(version, prepend=0))
    start = first & (version > 1)
    strangers = np.flatnonzero(~np.isin(distinct, known_ids))

    def name(at: int) -> str:
        return bytes(distinct[at]).decode()

    return [
        *_finding("label versions that occur twice", "double", code[step == 0], name),
        *_finding("label versions that are missing", "hole", code[(step > 1) | start], name),
        *_finding("labels of no prediction", "mismatch", strangers, name),
    ]


def audit_epochs(offsets: Ints, epochs: Ints) -> list[Finding]:
    """Routing epochs count up by one; compaction may have taken out records, never turned them round.

    Args:
        offsets: int64 (n,), ascending offsets of the control topic.
        epochs: int64 (n,).
    """
    step, gap = np.diff(epochs), np.diff(offsets)
    bad = np.flatnonzero((step < 1) | ((gap == 1) & (step != 1))) + 1
    return _finding("routing epochs out of turn", "mismatch", bad, lambda at: f"epoch {epochs[at]} at {offsets[at]}")


def audit_repeats(topic: str, sources: Positions, values: NDArray[np.float64]) -> list[Finding]:
    """Feature rows of one event agree, however often a worker wrote them.

    Args:
        topic: Events topic, for the examples.
        sources: Source of every feature row, n of them.
        values: float64 (n, d), NaN where missing.
    """
    codes = sources.codes
    order = np.argsort(codes, kind="stable")
    same = np.flatnonzero(codes[order][1:] == codes[order][:-1])
    one, two = values[order[same]], values[order[same + 1]]
    differs = np.any((one != two) & ~(np.isnan(one) & np.isnan(two)), axis=1)
    return _finding("feature rows that differ when repeated", "double", codes[order[same[differs]]], _place(topic))


def audit_counts(
    topic: str, events: Positions, keys: Ints, times_ms: Ints, served: NDArray[np.float64], span_ms: int, column: str
) -> list[Finding]:
    """A served window count equals the number of the key's events in (t - span, t] that had come.

    Args:
        topic: Events topic, for the examples.
        events: Every event with a feature row, n of them.
        keys: int64 (n,), number of each event's key.
        times_ms: int64 (n,), event times.
        served: float64 (n,), the count in the feature row.
        span_ms: Span of the window.
        column: Its name, for the examples.
    """
    order = np.lexsort((events.codes, keys))
    counted = np.empty(len(keys), np.int64)
    counted[order] = recount(keys[order], times_ms[order], span_ms)
    wrong = np.flatnonzero(served != counted)
    where = _place(topic)
    codes = events.codes
    return _finding(
        f"windows of {column} not counted once",
        "mismatch",
        wrong,
        lambda at: f"{where(int(codes[at]))}: served {served[at]:g}, counted {counted[at]}",
    )


def recount(keys: Ints, times_ms: Ints, span_ms: int) -> Ints:
    """Number of events of the same key in (t - span, t], as of each event's arrival.

    Args:
        keys: int64 (n,), grouped: equal keys stand together, in order of arrival.
        times_ms: int64 (n,).
        span_ms: Span, > 0.

    Returns:
        int64 (n,), >= 1. O(n log n) where a key's events arrive in time order, quadratic in the
        number of its events where they do not.
    """
    n = len(keys)
    if not n:
        return np.empty(0, np.int64)
    _, group = np.unique(keys, return_inverse=True)
    relative = times_ms - times_ms.min()
    reach = int(relative.max()) + 1
    place = group * reach + relative
    begin = group * reach + np.maximum(relative - span_ms, -1)
    counts: Ints = np.arange(1, n + 1) - np.searchsorted(place, begin, side="right")
    disordered = np.unique(group[1:][(group[1:] == group[:-1]) & (np.diff(relative) < 0)])
    for late in disordered:
        low, high = np.searchsorted(group, [late, late + 1])
        times = times_ms[low:high]
        for at in range(len(times)):
            come = times[: at + 1]
            counts[low + at] = np.count_nonzero((come > times[at] - span_ms) & (come <= times[at]))
    return counts


def audit_chain(claimed: Sequence[str], actual: Sequence[str]) -> list[Finding]:
    """Every audit entry names the hash of the entry before it.

    Args:
        claimed: `previous_hash` of the entries, oldest first.
        actual: Hash of each entry's bytes.
    """
    broken = np.array([at for at in range(1, len(claimed)) if claimed[at] != actual[at - 1]], np.int64)
    return _finding("audit entries off the hash chain", "mismatch", broken, lambda at: f"entry {at}")


def _place(topic: str) -> Callable[[int], str]:
    return lambda code: f"{topic}[{code // OFFSETS}]@{code % OFFSETS}"


def _finding(check: str, problem: Problem, where: Ints, name: Callable[[int], str]) -> list[Finding]:
    if not len(where):
        return []
    return [Finding(check, problem, len(where), tuple(name(int(at)) for at in where[:MAX_EXAMPLES]))]
