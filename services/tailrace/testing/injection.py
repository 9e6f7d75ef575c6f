"""Faults carried out on recordings: what producers would have sent, had this befallen them.

The result is again a pair of streams, so that it can be played to a broker as well as simulated.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tailrace.core.durations import milliseconds
from tailrace.errors import ConfigError
from tailrace.testing.faults import (
    AnyFault,
    ConceptShift,
    CovariateShift,
    Disorder,
    Drop,
    Duplicate,
    LabelDelay,
    Malformed,
    Poison,
    Side,
    Silence,
)
from tailrace.testing.malformed import malformed_records
from tailrace.testing.sent_streams import Indices, Stream, Streams
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sources import Label

HIGHEST = 0.9
"""Quantile of the column from which a concept shift draws its new positives."""


def inject(streams: Streams, faults: Sequence[AnyFault], use_case: UseCase, begin_ms: int, seed: int) -> Streams:
    """Carries out faults in the order given; those of services and models are none of a stream, and pass.

    Raises:
        ConfigError: a fault names a field that is not there, or one that it cannot change.
    """
    for number, fault in enumerate(faults):
        rng = np.random.default_rng([seed, number])
        span = fault.span_ms(begin_ms)
        match fault:
            case CovariateShift():
                streams = _shift_covariate(streams, fault, span)
            case ConceptShift():
                streams = _shift_concept(streams, fault, use_case, span, rng)
            case LabelDelay():
                streams = _delay(streams, fault, use_case, span, rng)
            case Poison():
                streams = _poison(streams, fault, use_case, span, rng)
            case Drop():
                streams = _drop(streams, fault.side, span, fault.share, rng)
            case Silence():
                streams = _drop(_drop(streams, "events", span, 1.0, rng), "outcomes", span, 1.0, rng)
            case Duplicate():
                streams = streams.with_stream(fault.side, _duplicate(streams.of(fault.side), fault, span, rng))
            case Disorder():
                streams = streams.with_stream(fault.side, _disorder(streams.of(fault.side), fault, span, rng))
            case Malformed():
                streams = streams.with_stream("events", _spoil(streams.events, fault, span, rng))
    return streams


def _chosen(times_ms: Indices, span: tuple[int, int], share: float, rng: np.random.Generator) -> Indices:
    """A share of the places within a span, ascending."""
    inside = np.flatnonzero((times_ms >= span[0]) & (times_ms < span[1]))
    return np.asarray(inside[rng.random(len(inside)) < share], np.int64)


def _drop(streams: Streams, side: Side, span: tuple[int, int], share: float, rng: np.random.Generator) -> Streams:
    stream = streams.of(side)
    kept = np.setdiff1d(np.arange(len(stream.arrival_ms)), _chosen(stream.arrival_ms, span, share, rng))
    return streams.with_stream(side, stream.take(kept))


def _numbers(stream: Stream, name: str) -> NDArray[np.float64]:
    column = stream.columns.get(name)
    if column is None or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        numeric = [
            one for one, c in stream.columns.items() if pa.types.is_integer(c.type) or pa.types.is_floating(c.type)
        ]
        near = difflib.get_close_matches(name, numeric, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{stream.topic.name} has no numeric field {name!r}{hint} (there are {', '.join(numeric)})")
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _shift_covariate(streams: Streams, fault: CovariateShift, span: tuple[int, int]) -> Streams:
    events = streams.events
    values = _numbers(events, fault.column)
    mean, deviation = float(np.nanmean(values)), float(np.nanstd(values))
    moved = mean + (values - mean) * fault.spread + fault.by * deviation
    inside = (events.times_ms >= span[0]) & (events.times_ms < span[1])
    if pa.types.is_integer(events.columns[fault.column].type):
        moved = np.rint(moved)
    return streams.with_stream("events", events.with_column(fault.column, np.where(inside, moved, values)))


def _judged(streams: Streams, use_case: UseCase) -> Indices:
    """Event that each outcome judges, int64 (m,), -1 for none."""
    ids, asked = streams.events.columns[use_case.prediction_id], streams.outcomes.columns[use_case.label.on]
    found = pc.fill_null(pc.index_in(pc.cast(asked, pa.string()), value_set=pc.cast(ids, pa.string())), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def _positive(outcomes: Stream, label: Label) -> NDArray[np.bool_]:
    return np.asarray(outcomes.columns[label.value].to_numpy(zero_copy_only=False)).astype(np.bool_)


def _shift_concept(
    streams: Streams, fault: ConceptShift, use_case: UseCase, span: tuple[int, int], rng: np.random.Generator
) -> Streams:
    """Outcomes change hands: each keeps its delay and what it says, and judges another event."""
    events, outcomes, label = streams.events, streams.outcomes, use_case.label
    judged, times_ms = _judged(streams, use_case), events.times_ms
    inside = (times_ms >= span[0]) & (times_ms < span[1])
    is_positive = np.zeros(len(times_ms), np.bool_)
    is_positive[judged[(judged >= 0) & _positive(outcomes, label)]] = True
    giving = np.flatnonzero(inside & is_positive)
    giving = giving[rng.random(len(giving)) < fault.share]
    eligible = inside & ~is_positive
    if fault.column and eligible.any():
        values = _numbers(events, fault.column)
        eligible &= values >= np.nanquantile(values[inside], HIGHEST)
    taking = np.flatnonzero(eligible)
    count = min(len(giving), len(taking))
    giving = rng.permutation(giving)[:count]
    taking = rng.choice(taking, count, replace=False) if count else taking[:0]
    partner = np.arange(len(times_ms))
    partner[giving], partner[taking] = taking, giving
    moved = np.flatnonzero((judged >= 0) & (partner[np.maximum(judged, 0)] != judged))
    return streams.with_stream("outcomes", _rejudge(streams, use_case, moved, judged, partner[judged[moved]]))


def _rejudge(streams: Streams, use_case: UseCase, rows: Indices, judged: Indices, now: Indices) -> Stream:
    """Outcomes at `rows` judge the events `now` instead, after the same delay."""
    outcomes, times_ms = streams.outcomes, streams.events.times_ms
    on = use_case.label.on
    owner = np.arange(len(outcomes.arrival_ms)) + len(times_ms)
    owner[rows] = now
    ids = pc.cast(streams.events.columns[use_case.prediction_id], outcomes.columns[on].type)
    both = pa.chunked_array([ids, outcomes.columns[on]]).combine_chunks()
    shift = np.zeros(len(outcomes.arrival_ms), np.int64)
    shift[rows] = times_ms[now] - times_ms[judged[rows]]
    changed = replace(outcomes, columns=outcomes.columns | {on: both.take(pa.array(owner))})
    changed = changed.with_column(outcomes.topic.event_time, outcomes.times_ms + shift)
    return replace(changed, arrival_ms=outcomes.arrival_ms + shift)


def _delay(
    streams: Streams, fault: LabelDelay, use_case: UseCase, span: tuple[int, int], rng: np.random.Generator
) -> Streams:
    outcomes, judged = streams.outcomes, _judged(streams, use_case)
    reported = outcomes.times_ms
    began = np.where(judged >= 0, streams.events.times_ms[np.maximum(judged, 0)], reported)
    delays = (reported - began).astype(np.float64)
    if fault.mean:
        delays = rng.exponential(milliseconds(fault.mean), len(delays))
    inside = (reported >= span[0]) & (reported < span[1]) & (judged >= 0)
    shift = np.where(inside, np.rint(delays * fault.times).astype(np.int64) - (reported - began), 0)
    changed = outcomes.with_column(outcomes.topic.event_time, reported + shift)
    return streams.with_stream("outcomes", replace(changed, arrival_ms=outcomes.arrival_ms + shift))


def _duplicate(stream: Stream, fault: Duplicate, span: tuple[int, int], rng: np.random.Generator) -> Stream:
    chosen = _chosen(stream.arrival_ms, span, fault.share, rng)
    later = rng.integers(0, milliseconds(fault.within), len(chosen), endpoint=True)
    doubled = stream.take(np.concatenate([np.arange(len(stream.arrival_ms)), chosen]))
    arrival_ms = doubled.arrival_ms.copy()
    arrival_ms[len(stream.arrival_ms) :] += later
    return replace(doubled, arrival_ms=arrival_ms)


def _disorder(stream: Stream, fault: Disorder, span: tuple[int, int], rng: np.random.Generator) -> Stream:
    arrival_ms = stream.arrival_ms.copy()
    chosen = _chosen(arrival_ms, span, fault.share, rng)
    arrival_ms[chosen] += rng.integers(0, milliseconds(fault.by), len(chosen), endpoint=True)
    return replace(stream, arrival_ms=arrival_ms, trailing_ms=milliseconds(stream.topic.lateness))


def _spoil(events: Stream, fault: Malformed, span: tuple[int, int], rng: np.random.Generator) -> Stream:
    among = _chosen(events.arrival_ms, span, fault.share, rng)
    record = {name: column[0].as_py() for name, column in events.columns.items()} if len(among) else {}
    made = malformed_records(int(rng.integers(2**31)), len(among), record, events.topic.event_time)
    arrivals = events.arrival_ms[among].tolist()
    bad = tuple((at, b"%d" % number, one.value) for number, (at, one) in enumerate(zip(arrivals, made, strict=True)))
    return replace(events, malformed=(*events.malformed, *bad))


def _poison(
    streams: Streams, fault: Poison, use_case: UseCase, span: tuple[int, int], rng: np.random.Generator
) -> Streams:
    """Flips what is reported; of events that nobody would have reported, positives are invented."""
    outcomes, label, judged = streams.outcomes, use_case.label, _judged(streams, use_case)
    column, _, value = fault.source.partition("=")
    of_outcomes = column in outcomes.columns
    source = outcomes if of_outcomes else streams.events
    speaks = _equal(source, column, value) if column else np.ones(len(source.arrival_ms), np.bool_)
    if of_outcomes:
        flipped = np.intersect1d(np.flatnonzero(speaks), _chosen(outcomes.times_ms, span, fault.share, rng))
        silent: Indices = np.empty(0, np.int64)
    else:
        chosen = _chosen(streams.events.times_ms, span, fault.share, rng)
        chosen = chosen[speaks[chosen]]
        flipped = np.flatnonzero(np.isin(judged, chosen))
        silent = np.setdiff1d(chosen, judged)
    values = _positive(outcomes, label)
    values[flipped] = ~values[flipped]
    false = streams.with_stream("outcomes", outcomes.with_column(label.value, values))
    if not len(silent) or not (judged >= 0).any():
        return false
    # A report of another event is taken as the form: it has every column, and a delay that is usual.
    forms = rng.choice(np.flatnonzero(judged >= 0), len(silent))
    m = len(outcomes.arrival_ms)
    longer = replace(false, outcomes=false.outcomes.take(np.concatenate([np.arange(m), forms])))
    added = np.arange(m, m + len(silent))
    rejudged = _rejudge(longer, use_case, added, np.concatenate([judged, judged[forms]]), silent)
    values = np.concatenate([values, np.ones(len(silent), np.bool_)])
    return longer.with_stream("outcomes", rejudged.with_column(label.value, values))


def _equal(stream: Stream, column: str, value: str) -> NDArray[np.bool_]:
    found = stream.columns.get(column)
    if found is None:
        raise ConfigError(f"poisoned source {column}={value}: neither events nor outcomes have a field {column!r}")
    equal = pc.fill_null(pc.equal(pc.cast(found, pa.string()), value), False)
    return np.asarray(equal.to_numpy(zero_copy_only=False), np.bool_)
