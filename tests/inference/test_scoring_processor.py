"""The scoring processor without Kafka."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tailrace.backends.memory import MemoryOnlineStore
from tailrace.backends.ports import Assigned, Message, Output, ReadRequest, Rows
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import (
    DEAD_LETTER_HEADER,
    WATERMARK_HEADER,
    DeadLetter,
    FeatureRow,
    Prediction,
    RoutingTable,
    Source,
    Variant,
)
from tailrace.core.plan import Plan
from tailrace.core.scoring import on_grid
from tailrace.core.windows import LabelState
from tailrace.errors import ArtifactInvalid, StateCorrupt, StoreUnavailable
from tailrace.inference import processor
from tailrace.inference.inputs import CHUNK, LONGEST_PAUSE_MS
from tailrace.inference.models import ModelPool, executor_of
from tailrace.inference.processor import ScoringProcessor

Tables = Callable[..., RoutingTable]
Bundles = Callable[..., Variant]
NOW = 50_000


class Store(MemoryOnlineStore):
    """Counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self, requests: Sequence[ReadRequest]) -> list[Rows]:
        self.reads += 1
        return super().read(requests)


class Bench:
    """A processor with partitions 0 and 1, its store and its pool."""

    def __init__(self, plan: Plan, log: Any, table: RoutingTable | None = None, metadata: str = "") -> None:
        self.plan = plan
        self.store = Store()
        self.metrics = Metrics("uc")
        self.log = log
        self.pool = ModelPool(plan, lambda bundle: executor_of(bundle, 1), lambda: None, log, lambda _: None)
        if table is not None:
            self.pool.load(table)
        self.processor = ScoringProcessor(plan, self.pool, self.store, self.metrics, log)
        self.processor.assigned([Assigned("uc.features", number, -1, metadata) for number in (0, 1)])

    def row(
        self, offset: int, a: float | None = 1.0, b: float | None = 2.0, *, partition: int = 0, **changes: Any
    ) -> Message:
        row = FeatureRow(
            event_id=f"e{partition}-{offset}",
            event_time_ms=10_000,
            key=f"card{offset % 7}",
            entities={"card": f"card{offset % 7}", "terminal": "t"},
            slices={"channel": "web"},
            values=[a, b],
            fingerprint=self.plan.fingerprint,
            source=Source("events", partition, offset),
            produced_at_ms=NOW - 40,
        )
        value = msgspec.json.encode(msgspec.structs.replace(row, **changes))
        return Message("uc.features", partition, offset * 2, NOW, row.key.encode(), value, [])

    def frauds(self, count: int, known_at_ms: int = 9_500) -> None:
        """Makes `count` frauds known at the terminal."""
        view = self.plan.online_views[0]
        state = LabelState(view)
        for number in range(count):
            state.apply("t", number, 1, known_at_ms, 1.0, fresh=True)
        values, times, packed = state.rows(["t"])
        self.store.write(view.name, view.entity, [c.name for c in view.columns], ["t"], values, times, packed)

    def process(self, *batch: Message, now_ms: int = NOW) -> list[Output]:
        return self.processor.process(batch, now_ms)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"tailrace_{name}", labels) or 0.0


def predictions(outputs: Sequence[Output], topic: str = "uc.predictions") -> list[Prediction]:
    return [msgspec.json.decode(o.value or b"", type=Prediction) for o in outputs if o.topic == topic and o.value]


def letters(outputs: Sequence[Output]) -> list[DeadLetter]:
    return [
        msgspec.json.decode(dict(o.headers)[DEAD_LETTER_HEADER], type=DeadLetter)
        for o in outputs
        if o.topic == "uc.dead-letters"
    ]


def sigmoid(x: float) -> float:
    return float(on_grid(np.array([1 / (1 + math.exp(-x))]))[0])


@pytest.fixture
def bench(plan: Plan, log: Any, bundle: Bundles, table: Tables) -> Bench:
    """With a champion that adds up its three columns, half each."""
    return Bench(plan, log, table(4, bundle("3", weights=(0.5, 0.5, 0.5))))


def test_prediction_holds_all_that_it_was_made_from(bench: Bench) -> None:
    bench.frauds(2)
    [output] = bench.process(bench.row(5, partition=1))
    [made] = predictions([output])
    assert (1, b"card5") == (output.partition, output.key)
    assert ("e1-5:champion", "e1-5", "uc", "card5") == (made.prediction_id, made.event_id, made.use_case, made.key)
    assert [1.0, 2.0, 2.0] == made.features
    assert sigmoid(2.5) == made.score
    assert (True, 0.5, 1.0) == (made.decision, made.threshold, made.propensity)
    assert ("champion", "3", 4) == (made.variant, made.model_version, made.epoch)
    assert ({"terminal_labels": 500}, []) == (made.ages_ms, made.degraded)
    assert (Source("events", 1, 5), NOW, NOW - 40) == (made.source, made.predicted_at_ms, made.produced_at_ms)
    assert 0.04 == pytest.approx(bench.counted("inference_end_to_end_seconds_sum"))


def test_without_a_model_the_default_is_published_and_the_inputs_are_logged(plan: Plan, log: Any) -> None:
    bench = Bench(plan, log)
    bench.frauds(1)
    [made] = predictions(bench.process(bench.row(0)))
    assert ("default", "0", 0, ["no_model"]) == (made.variant, made.model_version, made.epoch, made.degraded)
    assert (float(on_grid(np.array([0.1]))[0]), [1.0, 2.0, 1.0]) == (made.score, made.features)
    assert 1 == bench.counted("inference_degraded_total", reason="no_model")


def test_labels_known_after_the_event_do_not_reach_it(bench: Bench) -> None:
    bench.frauds(3, known_at_ms=10_001)
    [made] = predictions(bench.process(bench.row(0)))
    assert (0.0, {"terminal_labels": 0}) == (made.features[2], made.ages_ms)


def test_event_is_predicted_once_however_often_it_comes(bench: Bench) -> None:
    first = bench.process(bench.row(0), bench.row(1), bench.row(1), bench.row(0))
    again = bench.process(bench.row(1), bench.row(2))
    assert ["e0-0", "e0-1"] == [made.event_id for made in predictions(first)]
    assert ["e0-2"] == [made.event_id for made in predictions(again)]
    assert 3 == bench.counted("duplicates_total", topic="uc.features")


def test_metadata_carries_epoch_and_source_over_a_restart(bench: Bench, plan: Plan, log: Any) -> None:
    bench.process(bench.row(0), bench.row(7), bench.row(2, partition=1))
    stored = bench.processor.metadata("uc.features", 0)
    assert {"epoch": 4, "source": 7} == msgspec.json.decode(stored)
    restarted = Bench(plan, log, metadata=stored)
    outputs = restarted.process(bench.row(6), bench.row(7), bench.row(8))
    assert ["e0-8"] == [made.event_id for made in predictions(outputs)]


def test_partitions_keep_their_own_positions_until_they_go(bench: Bench) -> None:
    assert 2 == len(bench.process(bench.row(9), bench.row(3, partition=1)))
    bench.processor.revoked([("uc.features", 0)])
    bench.processor.assigned([Assigned("uc.features", 0, 5, '{"epoch":4,"source":2}')])
    assert ["e0-3"] == [m.event_id for m in predictions(bench.process(bench.row(3), bench.row(3, partition=1)))]


def test_metadata_of_a_stranger_stops_the_service(bench: Bench) -> None:
    with pytest.raises(StateCorrupt, match="another program"):
        bench.processor.assigned([Assigned("uc.features", 0, 5, "NO_METADATA")])


def test_unsettled_until_the_epoch_stands_in_every_partition(bench: Bench) -> None:
    assert bench.processor.unsettled()
    bench.processor.metadata("uc.features", 0)
    assert bench.processor.unsettled()
    bench.processor.metadata("uc.features", 1)
    assert not bench.processor.unsettled()


def test_watermarks_keep_their_place_and_partition_on_both_topics(bench: Bench) -> None:
    mark = Message("uc.features", 1, 1, NOW, None, None, [(WATERMARK_HEADER, b"77")])
    outputs = bench.process(bench.row(0, partition=1), mark, bench.row(2, partition=1))
    assert [True, False, False, True] == [o.value is not None for o in outputs]
    assert {"uc.predictions", "uc.shadow"} == {o.topic for o in outputs[1:3]}
    assert [1] * 4 == [o.partition for o in outputs]
    assert [(WATERMARK_HEADER, b"77")] == outputs[1].headers


def letter(offset: int, value: bytes | None = b"{broken", *before: tuple[str, bytes]) -> Message:
    made = DeadLetter(
        use_case="uc",
        stage="features",
        reason="not_json",
        detail="",
        source=Source("events", 0, offset),
        failed_at_ms=0,
    )
    headers = [*before, (DEAD_LETTER_HEADER, msgspec.json.encode(made))]
    return Message("uc.features", 0, offset, NOW, b"key", value, headers)


def test_dead_letters_of_features_are_passed_on_once_byte_for_byte(bench: Bench) -> None:
    outputs = bench.process(letter(3), letter(3), bench.row(4))
    assert ["uc.dead-letters", "uc.predictions"] == [o.topic for o in outputs]
    assert (b"key", b"{broken") == (outputs[0].key, outputs[0].value)
    assert [Source("events", 0, 3)] == [found.source for found in letters(outputs)]


def test_dead_letter_without_a_value_is_no_watermark(bench: Bench) -> None:
    assert ["uc.dead-letters"] == [o.topic for o in bench.process(letter(3, None))]


def test_header_a_producer_sent_does_not_hide_ours(bench: Bench) -> None:
    outputs = bench.process(letter(3, b"x", (DEAD_LETTER_HEADER, b"{forged")))
    assert [Source("events", 0, 3)] == [found.source for found in letters(outputs)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fingerprint": "another"}, "other_plan"),
        ({"values": [1.0]}, "wrong_shape"),
        ({"entities": {"card": "c"}}, "wrong_shape"),
    ],
)
def test_row_that_does_not_fit_is_a_dead_letter_in_the_place_of_its_event(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    outputs = bench.process(bench.row(3, **changes), bench.row(3, **changes), bench.row(4))
    assert [reason] == [found.reason for found in letters(outputs)]
    assert Source("events", 0, 3) == letters(outputs)[0].source
    assert ["e0-4"] == [made.event_id for made in predictions(outputs)]


def test_record_that_is_no_feature_row_is_a_dead_letter(bench: Bench) -> None:
    junk = bench.row(0)._replace(value=b'{"event_id": 1}')
    outputs = bench.process(junk, bench.row(1))
    assert ["wrong_type"] == [found.reason for found in letters(outputs)]
    assert 1 == len(predictions(outputs))


def test_missing_values_reach_the_model_and_are_logged_as_missing(
    plan: Plan, log: Any, bundle: Bundles, table: Tables
) -> None:
    bench = Bench(plan, log, table(1, bundle("1", weights=(0, 1, 0))))
    [made] = predictions(bench.process(bench.row(0, a=None, b=3.0)))
    # 0 * NaN: this model makes nothing of a missing value.
    assert ([None, 3.0, 0.0], ["model_failed"]) == (made.features, made.degraded)


def test_row_that_the_model_fails_on_gets_the_default_and_its_neighbours_their_scores(bench: Bench) -> None:
    outputs = bench.process(bench.row(0), bench.row(1, a=None), bench.row(2))
    assert [[], ["model_failed"], []] == [made.degraded for made in predictions(outputs)]
    assert [sigmoid(1.5), float(on_grid(np.array([0.1]))[0]), sigmoid(1.5)] == [m.score for m in predictions(outputs)]
    assert 1 == bench.counted("inference_model_failures_total", reason="run")
    assert 1 == bench.counted("inference_degraded_total", reason="model_failed")


def test_huge_values_are_logged_as_the_model_saw_them(bench: Bench) -> None:
    [made] = predictions(bench.process(bench.row(0, a=1e300, b=-1e300)))
    largest = np.finfo(np.float32).max
    assert [largest, -largest, 0.0] == np.array(made.features, np.float32).tolist()


def shadowed(bundle: Bundles, table: Tables, weights: Sequence[float]) -> RoutingTable:
    shadow = msgspec.structs.replace(bundle("2", weights=weights), name="shadow", role="shadow", share=0.0)
    return table(1, bundle("1", bias=-1), shadow)


def test_shadow_scores_everything_on_its_own_topic(plan: Plan, log: Any, bundle: Bundles, table: Tables) -> None:
    bench = Bench(plan, log, shadowed(bundle, table, (1, 0, 0)))
    outputs = bench.process(*[bench.row(at, partition=at % 2) for at in range(6)])
    assert [("champion", "1")] * 6 == [(m.variant, m.model_version) for m in predictions(outputs)]
    said = predictions(outputs, "uc.shadow")
    assert [f"e{at % 2}-{at}:shadow" for at in range(6)] == [m.prediction_id for m in said]
    assert {sigmoid(1.0)} == {m.score for m in said}
    assert [at // 2 % 2 for at in range(12)] == [o.partition for o in outputs]


class NotOnSeven:
    """Fails on every batch that holds a 7 in its first column."""

    def warm(self, rows: int) -> None: ...

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        if (matrix[:, 0] == 7).any():
            raise ArtifactInvalid("planted")
        return np.full(len(matrix), 0.5)


@pytest.mark.parametrize("failing", ["champion", "shadow"])
def test_models_fail_each_for_itself(plan: Plan, log: Any, bundle: Bundles, table: Tables, failing: str) -> None:
    routing = shadowed(bundle, table, (1, 0, 0))
    bench = Bench(plan, log, routing)
    assert bench.pool.serving is not None
    digest = {variant.name: variant.digest for variant in routing.variants}[failing]
    bench.pool.serving.executors[digest] = NotOnSeven()
    outputs = bench.process(bench.row(0), bench.row(1, a=7.0), bench.row(2))
    served, said = predictions(outputs), predictions(outputs, "uc.shadow")
    assert ["e0-0", "e0-1", "e0-2"] == [made.event_id for made in served]
    if failing == "champion":
        assert [[], ["model_failed"], []] == [made.degraded for made in served]
        assert [[], [], []] == [made.degraded for made in said]
    else:
        # A shadow owes nobody an answer.
        assert [[], [], []] == [made.degraded for made in served]
        assert ["e0-0", "e0-2"] == [made.event_id for made in said]
    assert 1 == bench.counted("inference_model_failures_total", reason="run")


def test_canary_gets_its_share_of_the_keys_and_says_so(plan: Plan, log: Any, bundle: Bundles, table: Tables) -> None:
    canary = msgspec.structs.replace(bundle("2"), name="canary", role="canary", share=0.25)
    bench = Bench(plan, log, table(1, bundle("1", share=0.75), canary))
    made = predictions(bench.process(*[bench.row(at, key=f"k{at}") for at in range(2_000)]))
    shares = {m.variant: m.propensity for m in made}
    assert {"champion": 0.75, "canary": 0.25} == shares
    assert 0.25 == pytest.approx(sum(m.variant == "canary" for m in made) / 2_000, abs=0.05)
    assert 2_000 == len({m.event_id for m in made})


def test_stale_row_is_replaced_and_flagged(plan: Plan, log: Any, bundle: Bundles, table: Tables) -> None:
    view = msgspec.structs.replace(plan.views[0], fresh_within_ms=100)
    strict = msgspec.structs.replace(plan, views=(view,))
    bench = Bench(strict, log, table(1, bundle("1", views=(view,))))
    bench.frauds(2, known_at_ms=9_800)
    [made] = predictions(bench.process(bench.row(0)))
    assert ([1.0, 2.0, 0.0], {"terminal_labels": 200}) == (made.features, made.ages_ms)
    assert ["terminal_labels"] == made.degraded
    assert 1 == bench.counted("inference_degraded_total", reason="terminal_labels")
    assert 1 == bench.counted("inference_feature_rows_total", view="terminal_labels", state="stale")
    assert 0.2 == bench.counted("inference_feature_age_seconds_total", view="terminal_labels")


def test_dead_store_degrades_and_is_asked_ever_more_seldom(bench: Bench) -> None:
    bench.frauds(2)
    bench.store.available = False
    for at in range(600):
        [made] = predictions(bench.process(bench.row(at), now_ms=NOW + 100 * at))
        assert (["terminal_labels"], {"terminal_labels": None}, 0.0) == (made.degraded, made.ages_ms, made.features[2])
    # After 0, 1, 3, 7, 15 and 31 of the 60 seconds.
    assert 6 == bench.store.reads == len(bench.log.of("online_store_away"))
    assert 6 == bench.counted("online_store_errors_total", operation="read")
    assert 600 == bench.counted("inference_feature_rows_total", view="terminal_labels", state="unread")
    bench.store.available = True
    [made] = predictions(bench.process(bench.row(700), now_ms=NOW + 60_000 + LONGEST_PAUSE_MS))
    assert ([], 2.0) == (made.degraded, made.features[2])
    assert 1 == len(bench.log.of("online_store_back"))


def test_dead_store_fails_once_for_a_batch_of_several_chunks(bench: Bench) -> None:
    bench.store.available = False
    made = predictions(bench.process(*[bench.row(at) for at in range(2 * CHUNK + 3)]))
    assert 2 * CHUNK + 3 == len(made) == bench.counted("inference_degraded_total", reason="terminal_labels")
    assert 1 == bench.counted("online_store_errors_total", operation="read") == len(bench.log.of("online_store_away"))


def test_store_is_asked_once_for_a_batch_and_not_for_an_empty_one(bench: Bench) -> None:
    bench.process()
    bench.process(*[bench.row(at) for at in range(50)])
    assert 1 == bench.store.reads


def test_a_batch_of_several_chunks_is_scored_as_single_events_are(
    plan: Plan, log: Any, bundle: Bundles, table: Tables
) -> None:
    routing = shadowed(bundle, table, (0.3, -0.2, 1))
    whole, single = Bench(plan, log, routing), Bench(plan, log, routing)
    count = 2 * CHUNK + 3
    for bench in (whole, single):
        bench.frauds(2)
    stream = [whole.row(at, b=at % 5, event_time_ms=9_400 + at) for at in range(count)]
    expected = [output for message in stream for output in single.process(message)]
    assert expected == whole.process(*stream)
    assert (3, count) == (whole.store.reads, single.store.reads)


def test_store_that_fails_does_not_fail_the_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(requests: Sequence[ReadRequest]) -> list[Rows]:
        raise StoreUnavailable("planted")

    monkeypatch.setattr(bench.store, "read", away)
    assert 1 == len(bench.process(bench.row(0)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 39)), doubled=st.sets(st.integers(0, 39)))
def test_however_the_stream_is_cut_and_repeated_the_predictions_are_the_same(
    plan: Plan, log: Any, bundle: Bundles, table: Tables, cuts: set[int], doubled: set[int]
) -> None:
    routing = shadowed(bundle, table, (0.3, -0.2, 1))
    whole, cut = Bench(plan, log, routing), Bench(plan, log, routing)
    stream = [whole.row(at, a=None if at % 9 == 4 else at / 8, b=at % 5) for at in range(40)]
    bounds = [0, *sorted(cuts), 40]
    got: list[Output] = []
    for begin, end in itertools.pairwise(bounds):
        # What features emits again after a crash begins at some earlier event.
        again = [stream[at] for at in sorted(doubled) if at < begin]
        got += cut.process(*again, *stream[begin:end])
    assert whole.process(*stream) == got


KINDS = ("row", "row again", "watermark", "dead letter", "misfit", "junk")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=25), chunk=st.integers(1, 6))
def test_records_of_all_kinds_come_out_in_order_wherever_the_chunks_end(
    plan: Plan, log: Any, bundle: Bundles, table: Tables, kinds: list[str], chunk: int
) -> None:
    routing = shadowed(bundle, table, (0.3, -0.2, 1))
    whole, single = Bench(plan, log, routing), Bench(plan, log, routing)
    made = {
        "row": whole.row,
        "row again": lambda at: whole.row(max(at - 2, 0)),
        "watermark": lambda at: Message("uc.features", at % 2, at, NOW, None, None, [(WATERMARK_HEADER, b"77")]),
        "dead letter": letter,
        "misfit": lambda at: whole.row(at, fingerprint="another", partition=at % 2),
        "junk": lambda at: whole.row(at)._replace(value=b"{"),
    }
    stream = [made[kind](at) for at, kind in enumerate(kinds)]
    expected = [output for message in stream for output in single.process(message)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "CHUNK", chunk)
        assert expected == whole.process(*stream)
    assert single.counted("duplicates_total", topic="uc.features") == whole.counted(
        "duplicates_total", topic="uc.features"
    )
