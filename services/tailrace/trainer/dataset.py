"""The data set of a request: predictions as served, each with its label if that was final in time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mmh3
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tailrace.contracts.retraining import Quarantined
from tailrace.core.delay_drift import find_drift
from tailrace.core.durations import milliseconds
from tailrace.core.label_delay import LEAST_SHARE, Delays, cell_of, learn
from tailrace.core.lost_outcomes import Span, within
from tailrace.core.quarantine import distrusted
from tailrace.core.regression import ValueGrid
from tailrace.core.sampling import DataSet, biased, maturity, newest_labels
from tailrace.core.window_spec import grid_of
from tailrace.errors import ImmatureLabels
from tailrace.trainer.lake import DAY_MS, labels_of, newest_day_ms, predictions_of, read_days
from tailrace.usecase.declaration import UseCase

_SEED = 15
"""Other numbers than those by which events are given to arms or partitions, which would bias the sample."""
EMPTY = DataSet(np.empty((0, 0), np.float32), np.empty(0, np.bool_), np.empty(0, np.int64))


class Window(NamedTuple):
    """What of the lake is trained on.

    `until_ms` is the stream time of the request, epoch milliseconds; `span_ms` the training window; `attribution_ms`
    and `lateness_ms` say how long a label can take to become final; `weighted` takes labels that are not final yet
    as well, weighted by how many more of their age are still to come. `grid` is where numbers are predicted. `lost`
    are spans of events whose outcomes may have been lost, disjoint and ascending: nothing is learnt from them. `drawn`:
    whether negatives are sampled, which takes a draw for each row.
    """

    until_ms: int
    span_ms: int
    attribution_ms: int
    lateness_ms: int
    weighted: bool = False
    grid: ValueGrid | None = None
    lost: Sequence[Span] = ()
    drawn: bool = False

    @staticmethod
    def of(use_case: UseCase, until_ms: int, *, weighted: bool, lost: Sequence[Span] = ()) -> Window:
        """What a use case is trained on at a stream time."""
        return Window(
            until_ms=until_ms,
            span_ms=milliseconds(use_case.retrain.window),
            attribution_ms=milliseconds(use_case.label.matures_after),
            lateness_ms=milliseconds(use_case.label.topic.lateness),
            weighted=weighted,
            grid=grid_of(use_case.plan),
            lost=lost,
            drawn=use_case.retrain.negative_sampling_rate < 1.0,
        )

    @property
    def wait_ms(self) -> int:
        """How long a label can take to become final, milliseconds."""
        return self.attribution_ms + self.lateness_ms


def load(directory: Path, *, fingerprint: str, window: Window, quarantined: Sequence[Quarantined] = ()) -> DataSet:
    """Rows whose labels had matured, of the span that ends with the newest of them.

    The result depends on what the topics hold up to that stream time, and on nothing else.

    Args:
        directory: The lake.
        fingerprint: Plan; rows of other plans mean something else.
        window: What of them.
        quarantined: Sources whose labels are marked as not to be trusted.

    Raises:
        ImmatureLabels: those that have come are no sample of those to come.
    """
    served, labels = _read(directory, fingerprint, window)
    if served is None or labels is None:
        return EMPTY
    served = served.filter(pa.array(~within(window.lost, _column(served, "event_time_ms"))))
    codes = _codes(served["prediction_id"], labels["prediction_id"])
    of_served, of_labels = codes[: served.num_rows], codes[served.num_rows :]
    _, first_of_each = np.unique(of_served, return_index=True)
    of_served, served = of_served[first_of_each], served.take(pa.array(first_of_each))
    times = _column(served, "event_time_ms")
    known = newest_labels(of_labels, _column(labels, "label_version"), _column(labels, "known_at_ms"), window.until_ms)
    state = _State.of(labels.take(pa.array(known)), of_labels[known], of_served)
    found = maturity(times, state.final, state.censored, until_ms=window.until_ms, wait_ms=window.wait_ms)
    reason = biased(found, state.positive)
    if reason:
        raise ImmatureLabels(reason)
    target = np.where(found.mature, state.positive.astype(np.float64), np.nan)
    if window.grid is not None:
        # Numbers that are known early may be of a kind, such as the lives that end soon, however many of their hour
        # are known: only where all could have come are those that came no choice of them.
        closed = found.mature & (times + window.wait_ms <= window.until_ms)
        target = np.where(closed, np.clip(state.value, window.grid.low, window.grid.high), np.nan)
    if window.weighted:
        target = _weighted(target, served, state, window)
    taken = np.flatnonzero(~np.isnan(target) & (times <= window.until_ms))
    if not taken.size:
        return EMPTY
    taken = taken[times[taken] > times[taken].max() - window.span_ms]
    ids = served["prediction_id"].to_numpy(zero_copy_only=False).astype(str)[taken]
    order = np.lexsort((ids, times[taken]))
    taken, draws = taken[order], _draws(ids[order]) if window.drawn else None
    targets = target[taken] if window.weighted or window.grid is not None else None
    data = DataSet(_matrix(served.take(pa.array(taken))), target[taken] > 0.0, times[taken], targets)
    return data._replace(distrusted=_distrusted(quarantined, state.source[taken], data.times_ms), draws=draws)


class _State(NamedTuple):
    """What is known of the labels of n predictions: masks bool; when the outcome was, int64 epoch ms, -1 for none.

    `value` float64 is the label itself, NaN for none. `source`, str, is who reported it, "" for nobody.
    """

    final: NDArray[np.bool_]
    censored: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    outcome_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    source: NDArray[np.str_]

    @staticmethod
    def of(newest: pa.Table, codes: NDArray[np.int64], of_served: NDArray[np.int64]) -> _State:
        """From the newest version of each label, by ascending code."""
        label = newest["label"].to_numpy()
        final = newest["final"].to_numpy() & ~np.isnan(label)
        # Files of older releases have no such columns, or no value in them.
        censored = _filled(newest, "censored", value=False).astype(np.bool_)
        # A last row stands for predictions of which nothing is known.
        at = np.searchsorted(codes, of_served)
        at = np.where(np.append(codes, -1)[at] == of_served, at, len(codes))
        outcome_ms = np.append(_filled(newest, "outcome_time_ms", value=-1), -1)[at]
        source = newest["source"].fill_null("") if "source" in newest.column_names else pa.repeat("", newest.num_rows)
        told = np.append(source.to_numpy(zero_copy_only=False), "").astype(np.str_)[at]
        known = ((final, False), (censored, False), (label > 0.0, False))
        closed, gone, positive = (np.append(column, missing)[at] for column, missing in known)
        return _State(closed, gone, positive, outcome_ms, np.append(label, np.nan)[at], told)


def _read(directory: Path, fingerprint: str, window: Window) -> tuple[pa.Table | None, pa.Table | None]:
    newest_ms = newest_day_ms(predictions_of(directory, fingerprint))
    if newest_ms is None:
        return None, None
    first_ms = window.until_ms - window.span_ms - window.wait_ms - DAY_MS
    last_ms = min(window.until_ms, newest_ms)
    labels = read_days(labels_of(directory), first_ms, last_ms)
    return read_days(predictions_of(directory, fingerprint), first_ms, last_ms), labels


def _weighted(target: NDArray[np.float64], served: pa.Table, state: _State, window: Window) -> NDArray[np.float64]:
    """Targets of predictions whose labels are still coming as well: y / F(age), NaN where too few come that early."""
    times, score = _column(served, "event_time_ms"), served["score"].to_numpy()
    closed = times + window.wait_ms <= window.until_ms
    delay_ms = state.outcome_ms - times
    came = state.positive & (state.outcome_ms >= 0) & (delay_ms < window.attribution_ms)
    delays = Delays.of(times[came], score[came], delay_ms[came], closed[came], window.until_ms)
    drift = find_drift(delays, window.attribution_ms)
    curve = drift.curve if drift is not None else learn(delays, window.attribution_ms)
    if curve is None:
        return target
    share = curve.at(cell_of(score), times, window.until_ms).share
    still = np.isnan(target) & ~closed & ~state.censored & (share >= LEAST_SHARE)
    return np.where(still, state.positive / np.maximum(share, LEAST_SHARE), target)


def _distrusted(
    quarantined: Sequence[Quarantined], source: NDArray[np.str_], times_ms: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    names, codes = np.unique(source, return_inverse=True)
    found = distrusted(quarantined, names.tolist(), codes, times_ms)
    return found if found.any() else None


def _draws(ids: NDArray[np.str_]) -> NDArray[np.float64]:
    """A number in [0, 1) for each id, the same in every set: MurmurHash3 (Appleby 2011), under a seed of our own."""
    seeded = partial(mmh3.hash, seed=_SEED, signed=False)
    return np.fromiter(map(seeded, ids.tolist()), np.float64, len(ids)) / 2.0**32


def _codes(first: pa.ChunkedArray, second: pa.ChunkedArray) -> NDArray[np.int64]:
    """Numbers for the ids of both columns, equal where the ids are."""
    both = pa.chunked_array([*first.chunks, *second.chunks], type=pa.string()).combine_chunks()
    return np.asarray(both.dictionary_encode().indices.to_numpy(), dtype=np.int64)


def _filled(table: pa.Table, name: str, *, value: int) -> NDArray[np.int64]:
    if name not in table.column_names:
        return np.full(table.num_rows, value, np.int64)
    return np.asarray(table[name].fill_null(value).to_numpy(zero_copy_only=False), dtype=np.int64)


def _column(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table[name].to_numpy(), dtype=np.int64)


def _matrix(table: pa.Table) -> NDArray[np.float32]:
    lists = table["features"].combine_chunks()
    width = lists.type.list_size
    # A copy of our own: Arrow's memory is read-only, which torch does not take.
    return np.array(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, width)
