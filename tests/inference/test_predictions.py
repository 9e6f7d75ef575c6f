"""Predictions written by the column are those written one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from prometheus_client import Histogram

from tailrace.backends.telemetry import LATENCY_BUCKETS_S, observe_all
from tailrace.contracts.records import FeatureRow, Prediction, Source, Variant
from tailrace.core.plan import Plan
from tailrace.core.scoring import on_grid
from tailrace.inference.inputs import Inputs
from tailrace.inference.predictions import PredictionEncoder, Scored, SharedTexts

NOW = 50_000
WIDTH = 3
names = st.text(max_size=6)
integers = st.integers(-(2**62), 2**62)
variants = st.builds(
    Variant,
    name=names,
    role=st.sampled_from(["champion", "canary", "shadow"]),
    model_version=names,
    bundle_uri=st.just(""),
    digest=names,
    share=st.floats(0, 1),
)
feature_rows = st.builds(
    FeatureRow,
    event_id=names,
    event_time_ms=integers,
    key=names,
    entities=st.dictionaries(names, names, max_size=2),
    slices=st.dictionaries(names, names, max_size=2),
    values=st.just([]),
    fingerprint=st.just(""),
    source=st.builds(Source, names, integers, integers),
    produced_at_ms=integers,
)


def plan_of(use_case: str, threshold: float) -> Plan:
    return Plan(
        use_case=use_case,
        version=1,
        key="k",
        event_time="t",
        event_id="i",
        entities=(),
        slices=(),
        request=(),
        views=(),
        field_types={},
        threshold=threshold,
        default_score=0.1,
        latency_budget_ms=50,
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[Inputs, Scored]:
    rows = draw(st.lists(feature_rows, min_size=1, max_size=5))
    n = len(rows)
    finite = st.floats(width=32, allow_infinity=False)
    matrix = draw(arrays.arrays(np.float32, (n, WIDTH), elements=finite))
    ages = {
        name: np.array(draw(st.lists(st.integers(-1, 2**40), min_size=n, max_size=n)), np.int64)
        for name in draw(st.lists(names, max_size=2, unique=True))
    }
    degraded = draw(st.dictionaries(st.integers(0, n - 1), st.lists(names, min_size=1, max_size=2)))
    places = np.array(sorted(draw(st.sets(st.integers(0, n - 1), min_size=1))), np.intp)
    chance = st.floats(0, 1) | st.just(float("nan"))
    scores = np.array(draw(st.lists(chance, min_size=len(places), max_size=len(places))))
    return Inputs(rows, matrix, ages, degraded), Scored(draw(variants), draw(st.integers(0, 9)), places, scores)


def one_by_one(plan: Plan, inputs: Inputs, scored: Scored) -> list[Prediction]:
    """The naive twin."""
    made = []
    for place, given_score in zip(scored.places.tolist(), scored.scores.tolist(), strict=True):
        row, variant, failed = inputs.rows[place], scored.variant, given_score != given_score
        score = float(on_grid(np.array([plan.default_score if failed else given_score]))[0])
        passed_on: dict[str, Any] = {
            name: getattr(row, name)
            for name in ("event_id", "key", "entities", "slices", "event_time_ms", "source", "produced_at_ms")
        }
        made.append(
            Prediction(
                prediction_id=f"{row.event_id}:{variant.name}",
                use_case=plan.use_case,
                predicted_at_ms=NOW,
                variant=variant.name,
                model_version=variant.model_version,
                model_digest=variant.digest,
                epoch=scored.epoch,
                score=score,
                decision=score >= plan.threshold,
                threshold=plan.threshold,
                propensity=1.0 if variant.role == "shadow" else variant.share,
                features=inputs.matrix[place].tolist(),
                ages_ms={view: age if age >= 0 else None for view, age in ages_of(inputs, place).items()},
                fingerprint=plan.fingerprint,
                degraded=[*inputs.degraded.get(place, []), *([scored.failure] if failed else [])],
                **passed_on,
            )
        )
    return made


def ages_of(inputs: Inputs, place: int) -> dict[str, int]:
    return {view: int(column[place]) for view, column in inputs.ages_ms.items()}


def features_apart(text: bytes) -> tuple[bytes, list[float | None]]:
    """A prediction without its features, byte for byte, and its features."""
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    features = msgspec.json.decode(fields["features"], type=list[float | None])
    return msgspec.json.encode(fields | {"features": msgspec.Raw(b"[]")}), features


@settings(deadline=None)
@given(batch=batches(), use_case=names, threshold=st.floats(0, 1))
def test_predictions_are_written_as_one_by_one(batch: tuple[Inputs, Scored], use_case: str, threshold: float) -> None:
    inputs, scored = batch
    plan = plan_of(use_case, threshold)
    written = PredictionEncoder(plan).encode(inputs, SharedTexts(inputs), scored, NOW)
    expected = [msgspec.json.encode(each) for each in one_by_one(plan, inputs, scored)]
    assert [features_apart(text)[0] for text in expected] == [features_apart(text)[0] for text in written]
    np.testing.assert_array_equal(
        inputs.matrix[scored.places], np.array([features_apart(text)[1] for text in written], np.float32)
    )
    assert all(isinstance(msgspec.json.decode(text, type=Prediction), Prediction) for text in written)


@settings(deadline=None)
@given(st.lists(st.floats(0, 100) | st.sampled_from(LATENCY_BUCKETS_S), max_size=20))
def test_many_values_are_observed_as_one_by_one(values: list[float]) -> None:
    whole, single = (Histogram("h", "", buckets=LATENCY_BUCKETS_S, registry=None) for _ in range(2))
    observe_all(whole, np.array(values))
    for value in values:
        single.observe(value)
    totals = [{s.name + str(s.labels): s.value for m in h.collect() for s in m.samples} for h in (whole, single)]
    assert totals[0].keys() == totals[1].keys()
    np.testing.assert_allclose(list(totals[0].values()), list(totals[1].values()), rtol=1e-12)
