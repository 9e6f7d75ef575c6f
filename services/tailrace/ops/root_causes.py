"""What a rise of the loss comes from, answered from the newest predictions and labels on the topics."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder
from tailrace.backends.kafka import admin, end_offsets, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.core.loss_detectors import LOSS_CAP, log_losses
from tailrace.core.root_cause import Sample, explain
from tailrace.core.window_spec import grid_of
from tailrace.usecase.declaration import UseCase

NEWEST = 200_000
"""Records looked at of each topic, the newest: what memory and patience allow."""
LEAST = 200
"""Judged predictions on each side below which nothing is said."""
BATCH = 10_000


class _Served(msgspec.Struct, frozen=True, gc=False):
    prediction_id: str
    event_time_ms: int
    model_version: str
    score: float
    slices: dict[str, str]
    features: tuple[float | None, ...]
    ages_ms: dict[str, int | None]
    degraded: tuple[str, ...]
    fingerprint: str


class _Label(msgspec.Struct, frozen=True, gc=False):
    prediction_id: str
    label_version: int
    label: float | None
    status: str
    auxiliary: bool = False


class _Judged(NamedTuple):
    ids: list[str]
    times_ms: NDArray[np.int64]
    names: tuple[str, ...]
    sample: Sample


def root_causes(settings: Settings, use_case: UseCase, since_ms: int) -> dict[str, Any]:
    """Ranks what explains the rise of the log loss since an event time.

    Returns:
        "loss_before", "loss_now" and "causes", as `core.root_cause.Explanation`, with the ids of the worst predictions
        for "examples"; "from_ms", "since_ms" and "until_ms" of event time, and "judged_before" and "judged_now", the
        predictions with a final label that this rests on. "problem" says why nothing can be said, "" where it can.
    """
    judged = _judged(settings, use_case)
    now = judged.times_ms >= since_ms
    counts = {"judged_before": int((~now).sum()), "judged_now": int(now.sum())}
    span = {"from_ms": int(judged.times_ms.min(initial=since_ms)), "since_ms": since_ms}
    answer: dict[str, Any] = {
        **span,
        "until_ms": int(judged.times_ms.max(initial=since_ms)),
        **counts,
        "loss_before": None,
        "loss_now": None,
        "causes": [],
        "problem": "",
    }
    if min(counts.values()) < LEAST:
        where = f"before {counts['judged_before']}, since {counts['judged_now']}, of the newest {NEWEST} predictions"
        return answer | {"problem": f"needs {LEAST} judged predictions before and since that time; there are {where}"}
    found = explain(judged.names, _taken(judged.sample, ~now), _taken(judged.sample, now))
    ids = [judged.ids[place] for place in np.flatnonzero(now).tolist()]
    explained: dict[str, Any] = msgspec.to_builtins(found)
    for cause in explained["causes"]:
        cause["examples"] = [ids[place] for place in cause["examples"]]
    return answer | explained


def _judged(settings: Settings, use_case: UseCase) -> _Judged:
    topics, plan = Topics(use_case.name), use_case.plan
    labels = _final_labels(settings, topics.labels)
    taken: list[_Served] = []
    decoder = BatchDecoder(_Served)
    for values in _newest(settings, topics.predictions):
        # Rows of another plan have other features; only Tailrace writes here, so that what cannot be read is no row.
        taken += [
            row
            for row in decoder.decode(values)
            if isinstance(row, _Served) and row.prediction_id in labels and row.fingerprint == plan.fingerprint
        ]
    scores = np.array([row.score for row in taken], dtype=np.float64)
    known = np.array([labels[row.prediction_id] for row in taken], dtype=np.float64)
    grid = grid_of(plan)
    # Cut off as for the detectors: one absurdity must not speak for its whole group.
    loss = (
        np.minimum(log_losses(scores, known > 0.0), LOSS_CAP) if grid is None else grid.absolute_losses(scores, known)
    )
    views = sorted({view for row in taken for view in row.ages_ms})
    ages = [[row.ages_ms.get(view) for view in views] for row in taken]
    matrix = np.array([row.features for row in taken], dtype=np.float32).reshape(len(taken), len(plan.order))
    aged = np.array(ages, dtype=np.float32).reshape(len(taken), len(views))
    attributes = {
        "model_version": np.array([row.model_version for row in taken], dtype=np.str_),
        "degraded": np.array([", ".join(row.degraded) or "nothing" for row in taken], dtype=np.str_),
    }
    for name in use_case.slices:
        attributes[name] = np.array([row.slices.get(name, "") for row in taken], dtype=np.str_)
    return _Judged(
        [row.prediction_id for row in taken],
        np.array([row.event_time_ms for row in taken], dtype=np.int64),
        (*plan.order, *(f"age of {view}, ms" for view in views)),
        Sample(loss, np.hstack((matrix, aged)), attributes),
    )


def _final_labels(settings: Settings, topic: str) -> dict[str, float]:
    newest: dict[str, _Label] = {}
    decoder = BatchDecoder(_Label)
    for values in _newest(settings, topic):
        for label in decoder.decode(values):
            if isinstance(label, _Label) and not label.auxiliary:
                known = newest.get(label.prediction_id)
                if known is None or known.label_version < label.label_version:
                    newest[label.prediction_id] = label
    return {name: it.label for name, it in newest.items() if it.status == "final" and it.label is not None}


def _newest(settings: Settings, topic: str) -> Iterator[list[bytes]]:
    """Values of the newest records of a topic, as many of each partition."""
    each = NEWEST // max(len(end_offsets(admin(settings), topic)), 1)
    values = (message.value for message in read_topic(settings, topic, newest=each) if message.value is not None)
    while batch := list(islice(values, BATCH)):
        yield batch


def _taken(sample: Sample, which: NDArray[np.bool_]) -> Sample:
    attributes = {name: values[which] for name, values in sample.attributes.items()}
    return Sample(sample.loss[which], sample.features[which], attributes)
