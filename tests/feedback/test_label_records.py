"""What is written by a compiled loop, against the encoder."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.backends.codec import encode
from tailrace.contracts.records import Prediction, Source
from tailrace.core.join_records import Arrivals, JoinSpec, Scored
from tailrace.core.joins import JoinState
from tailrace.core.labels import NO_TIME, REASONS, STATUSES, Changes
from tailrace.feedback.label_writer import LabelWriter

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
PLAIN = st.text("abc:019-", max_size=6)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TIME = st.integers(-(2**62), 2**62)


def predictions(ids: st.SearchStrategy[str], names: st.SearchStrategy[str]) -> st.SearchStrategy[Prediction]:
    return st.builds(
        Prediction,
        prediction_id=ids,
        event_id=ids,
        use_case=names,
        key=ids,
        entities=st.dictionaries(names, names, max_size=2),
        slices=st.dictionaries(names, st.sampled_from(["web", "pos"]), max_size=1),
        event_time_ms=st.integers(-(10**15), 10**15),
        predicted_at_ms=TIME,
        variant=st.sampled_from(["champion", "shadow"]),
        model_version=st.sampled_from(["1", "12"]),
        model_digest=names,
        epoch=st.integers(0, 3),
        score=NUMBER,
        decision=st.booleans(),
        threshold=NUMBER,
        propensity=NUMBER,
        features=st.lists(st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4),
        ages_ms=st.dictionaries(names, st.none() | st.integers(0, 9), max_size=2),
        fingerprint=names,
        degraded=st.lists(names, max_size=2),
        source=st.builds(Source, names, st.integers(0, 9), st.integers(0, 9)),
        produced_at_ms=TIME,
        activated=st.booleans(),
        blocked=st.booleans(),
    )


def parsed(values: list[bytes]) -> Arrivals:
    return Arrivals.of([msgspec.json.decode(value, type=Scored) for value in values])


@st.composite
def changes(draw: Any, count: int) -> Changes:
    def column(of: st.SearchStrategy[Any], kind: str) -> Any:
        return np.array(draw(st.lists(of, min_size=count, max_size=count)), dtype=kind)

    return Changes(
        np.arange(count),
        np.arange(count),
        column(st.integers(1, 2**31 - 1), "i4"),
        column(st.none() | NUMBER, "f8"),
        column(st.integers(0, len(STATUSES) - 1), "i1"),
        column(st.integers(0, len(REASONS) - 1), "i1"),
        column(TIME, "i8"),
        column(st.just(NO_TIME) | TIME, "i8"),
        column(NUMBER, "f8"),
    )


@given(st.lists(predictions(PLAIN, TEXT), min_size=1, max_size=4), TEXT, st.booleans(), st.data())
def test_label_records_are_those_of_the_encoder(records: list[Prediction], name: str, aside: bool, data: Any) -> None:
    join = JoinState(JoinSpec(window_ms=10, lateness_ms=1, correction_ms=10, hold_ms=1))
    join.predict(parsed([encode(record) for record in records]))
    changed = data.draw(changes(len(join.table)))
    changed = changed._replace(rows=join.table.live())
    writer = LabelWriter("labels", name, name, auxiliary=aside)
    assert writer.records(join.table, changed) == writer._parsed(join.table, changed)
