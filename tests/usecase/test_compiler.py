from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

import tailrace as tr
from tailrace.core.plan import RequestColumn, WindowColumn
from tailrace.errors import UseCaseError


class Payment(tr.Event):
    payment_id: str
    card_id: str
    merchant_id: int
    amount_eur: float
    tip_eur: Annotated[float, msgspec.Meta(ge=0)] | None
    contactless: bool
    channel: Literal["web", "pos"]
    city: str
    tags: list[str]
    at_ms: int


class Dispute(tr.Event):
    payment_id: str
    fraud: bool
    revision: int
    withdrawn: bool
    at_ms: int


payments = tr.Topic("shop.payments", Payment, key="card_id", event_time="at_ms")
disputes = tr.Topic("shop.disputes", Dispute, key="payment_id", event_time="at_ms")
fraud = tr.Label(disputes, on="payment_id", value="fraud", matures_after="3d")


def declare(**changes: Any) -> tr.UseCase:
    arguments: dict[str, Any] = {
        "name": "shop",
        "requests": payments,
        "prediction_id": "payment_id",
        "features": [tr.Field("amount_eur")],
        "label": fraud,
        "model": tr.Binary(),
    }
    return tr.UseCase(**(arguments | changes))


def findings(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(UseCaseError) as caught:
        declare(**changes)
    return caught.value.findings


def test_request_features_become_columns_in_their_order() -> None:
    plan = declare(
        features=[
            tr.Field("amount_eur"),
            tr.Field("tip_eur"),
            tr.Field("contactless"),
            tr.OneHot("channel"),
            tr.Category("city", buckets=8),
            tr.HourOfDay(),
            tr.DayOfWeek(),
            tr.IsWeekend(),
            tr.IsNight(until=5),
        ]
    ).plan
    assert plan.request == (
        RequestColumn(name="amount_eur", kind="field", field="amount_eur"),
        RequestColumn(name="tip_eur", kind="field", field="tip_eur"),
        RequestColumn(name="contactless", kind="field", field="contactless"),
        RequestColumn(name="channel=web", kind="one_hot", field="channel", categories=("web",)),
        RequestColumn(name="channel=pos", kind="one_hot", field="channel", categories=("pos",)),
        RequestColumn(name="city", kind="category", field="city", buckets=8),
        RequestColumn(name="hour_of_day", kind="hour_of_day"),
        RequestColumn(name="day_of_week", kind="day_of_week"),
        RequestColumn(name="is_weekend", kind="is_weekend"),
        RequestColumn(name="is_night", kind="is_night", until_hour=5),
    )


def test_a_literal_category_keeps_its_values_instead_of_buckets() -> None:
    (column,) = declare(features=[tr.Category("channel")]).plan.request
    assert (column.categories, column.buckets) == (("web", "pos"), 0)


def test_windows_of_events_and_labels_become_one_view_per_source_and_entity() -> None:
    plan = declare(
        features=[
            *tr.GroupBy(fraud, by="merchant_id", windows=["7d"], fresh_within="1d").aggregate(
                tr.Count(), tr.Mean("fraud")
            ),
            *tr.GroupBy(payments, by="card_id", windows=["10m", "1h"]).aggregate(tr.Count(), tr.SinceLast()),
            *tr.GroupBy(payments, by="card_id", windows=["1d"]).aggregate(
                tr.Sum("amount_eur"), tr.DistinctCount("city")
            ),
            *tr.GroupBy(fraud, by="card_id", windows=["30d"]).aggregate(tr.Sum("fraud")),
        ]
    ).plan
    assert [(v.name, v.source, v.entity, v.fresh_within_ms) for v in plan.views] == [
        ("shop_card_id_events", "events", "card_id", None),
        ("shop_merchant_id_labels", "labels", "merchant_id", 86_400_000),
        ("shop_card_id_labels", "labels", "card_id", None),
    ]
    assert plan.order == (
        "card_id_count_10m",
        "card_id_count_1h",
        "card_id_since_last",
        "card_id_sum_amount_eur_1d",
        "card_id_distinct_city_1d",
        "merchant_id_count_7d",
        "merchant_id_mean_label_7d",
        "card_id_sum_label_30d",
    )
    assert plan.views[1].columns[1] == WindowColumn(
        name="merchant_id_mean_label_7d", kind="mean", field="label", span_ms=604_800_000
    )
    assert plan.entities == ("card_id", "merchant_id")
    assert plan.own_order + plan.online_order == plan.order


def test_field_types_name_every_payload_field_that_is_used() -> None:
    plan = declare(
        slices=["channel", "contactless"],
        features=[
            tr.Field("tip_eur"),
            *tr.GroupBy(fraud, by="merchant_id", windows=["7d"]).aggregate(tr.Count()),
        ],
    ).plan
    assert plan.field_types == {
        "payment_id": "str",
        "card_id": "str",
        "merchant_id": "int",
        "tip_eur": "float",
        "contactless": "bool",
        "channel": "str",
        "at_ms": "int",
    }


def test_policies_reach_the_plan() -> None:
    plan = declare(model=tr.Binary(threshold=0.25, latency_budget="20ms", on_failure=tr.Default(0.02))).plan
    assert (plan.threshold, plan.latency_budget_ms, plan.default_score) == (0.25, 20, 0.02)


def test_the_fingerprint_follows_meaning_and_not_policy() -> None:
    plain = declare().plan.fingerprint
    assert declare(model=tr.Binary(threshold=0.9), owner="others", version=2).plan.fingerprint == plain
    assert declare(features=[tr.Field("tip_eur")]).plan.fingerprint != plain


def test_all_findings_come_at_once_in_the_order_of_the_declaration() -> None:
    found = findings(
        name="my-shop",
        prediction_id="payment",
        slices=["chanel"],
        features=[tr.Field("amount")],
        model=tr.Binary(train="torhc", threshold=1.5),
        monitor=[tr.metrics.LogLoss("1 week")],
        retrain=tr.Retrain(on=["drifts"]),  # type: ignore[list-item]  # the mistake under test
        gates=[tr.NotWorse("logloss")],
        rollout=tr.Shadow(max_disagreement=-1),
    )
    assert [sentence.split(":")[0] for sentence in found] == [
        "name",
        "prediction_id",
        "slices",
        'features[0] Field("amount")',
        "model.threshold",
        "model.train",
        "monitor LogLoss window",
        "retrain.on",
        "gates[0] NotWorse",
        "rollout.max_disagreement",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"features": [tr.Field("amount")]},
            "features[0] Field(\"amount\"): Payment has no field 'amount'; did you mean 'amount_eur'?",
        ),
        (
            {"features": [tr.Field("tags")]},
            'features[0] Field("tags"): Payment.tags must be bool or int or float, it is list[str]',
        ),
        (
            {"features": [tr.OneHot("city")]},
            'features[0] OneHot("city"): needs a Literal of strings; use Category for other strings',
        ),
        (
            {"features": [tr.Category("city", buckets=0)]},
            'features[0] Category("city"): buckets=0 must be greater than 0',
        ),
        (
            {"features": [tr.IsNight(until=24)]},
            "features[0] IsNight(24): until must be an hour from 0 to 23",
        ),
        (
            {"features": [tr.Field("amount_eur"), tr.Field("amount_eur")]},
            "features: column 'amount_eur' is declared 2 times; keep one",
        ),
        ({"features": []}, "features: a model needs at least one column"),
        (
            {"features": [tr.GroupBy(payments, by="card_id", windows=["1h"]).aggregate(tr.Count())]},
            "unpack groups with *GroupBy(...).aggregate(...)",
        ),
        (
            {"features": tr.GroupBy(payments, by="city", windows=["1h"]).aggregate(tr.Count())},
            "events are windowed by the key of their topic, 'card_id'; other keys are not supported yet: "
            "group the label by 'city', or key the topic by it in a use case of its own",
        ),
        (
            {"features": tr.GroupBy(payments, by="card_id", windows=[]).aggregate(tr.Count())},
            'name at least one span, such as windows=["1h"]',
        ),
        (
            {"features": tr.GroupBy(payments, by="card_id", windows=["0s"]).aggregate(tr.Count())},
            "'0s' must be longer than nothing",
        ),
        (
            {"features": tr.GroupBy(payments, by="card_id", windows=["1h"]).aggregate()},
            "aggregate() needs at least one aggregate, such as Count()",
        ),
        (
            {"features": tr.GroupBy(payments, by="card_id", windows=["1h"]).aggregate(tr.Sum("city"))},
            "Payment.city must be bool or int or float, it is str",
        ),
        (
            {"features": tr.GroupBy(payments, by="card_id", windows=["1h"], fresh_within="1h").aggregate(tr.Count())},
            "has no effect: windows of the event's own key are exact; remove it",
        ),
        (
            {"features": tr.GroupBy(fraud, by="merchant_id", windows=["1h"]).aggregate(tr.Max("fraud"))},
            "labels can be revised; only Count, Sum and Mean of them are supported",
        ),
        (
            {"features": tr.GroupBy(fraud, by="merchant_id", windows=["1h"]).aggregate(tr.Mean("frau"))},
            "'frau' is no value of the label; did you mean 'fraud'?",
        ),
        (
            {"features": tr.GroupBy(disputes, by="payment_id", windows=["1h"]).aggregate(tr.Count())},
            "is neither the requests topic nor the label of this use case that judges models",
        ),
        (
            {
                "features": [
                    *tr.GroupBy(fraud, by="city", windows=["1h"], fresh_within="1d").aggregate(tr.Count()),
                    *tr.GroupBy(fraud, by="city", windows=["1d"], fresh_within="2d").aggregate(tr.Count()),
                ]
            },
            "groups of one source and key share a row and need the same fresh_within",
        ),
        ({"version": 0}, "version: 0 must be 1 or greater"),
        ({"slices": ["channel", "channel"]}, "slices: 'channel' is named twice"),
        (
            {"requests": tr.Topic("shop.labels", Payment, key="card_id", event_time="at_ms")},
            "requests: 'shop.labels' is a topic Tailrace writes; use another",
        ),
        (
            {"requests": tr.Topic("shop payments", Payment, key="card_id", event_time="at_ms")},
            "requests: 'shop payments' is no Kafka topic name",
        ),
        (
            {"requests": tr.Topic("shop.disputes", Payment, key="card_id", event_time="at_ms")},
            "label.topic: 'shop.disputes' carries the requests; outcomes need a topic of their own",
        ),
        (
            {"requests": tr.Topic("p", Payment, key="amount_eur", event_time="tip_eur", lateness="soon")},
            "requests event_time: Payment.tip_eur must be int",
        ),
        (
            {"label": tr.Label(disputes, on="payment", value="fraud", matures_after="3d")},
            "label.on: Dispute has no field 'payment'; did you mean 'payment_id'?",
        ),
        (
            {"label": tr.Label(disputes, on="payment_id", value="fraud", matures_after="3d", retract="revision")},
            "label.retract: Dispute.revision must be bool, it is int",
        ),
        (
            {"label": tr.Label(disputes, on="payment_id", value="fraud", matures_after="3d", closes="outcomes")},
            "label.closes: 'outcomes' is no way to close; did you mean 'outcome'?",
        ),
        (
            {"label": tr.Label(disputes, on="payment_id", value="fraud", matures_after="3d", if_absent=True)},
            "label.if_absent: True must be False (negative) or None (censored)",
        ),
        ({"model": tr.Binary(on_failure=tr.Default(float("nan")))}, "model.on_failure: nan must lie in [0, 1]"),
        ({"model": tr.Binary(latency_budget="fast")}, "model.latency_budget: 'fast' is not a duration"),
        ({"monitor": [tr.metrics.Brier("1h")]}, "monitor Brier window: '1h' must be a whole multiple of '1d'"),
        ({"monitor": [tr.metrics.Brier("1d", drop=0.0)]}, "monitor Brier drop: 0.0 must be greater than 0"),
        ({"monitor": [tr.metrics.Brier("1d")] * 2}, "monitor: brier over 1d is named twice"),
        ({"monitor": [tr.drift.PSI(every="10m")]}, "monitor PSI every: '10m' must be a whole multiple of '1h'"),
        ({"monitor": [tr.drift.ADWIN("logloss")]}, "'logloss' is no loss of single predictions; did you mean"),
        (
            {"retrain": tr.Retrain(at_most_every="2d", at_least_every="1d")},
            "retrain.at_least_every: must not be shorter than at_most_every, its cool-down",
        ),
        ({"retrain": tr.Retrain(min_labels=0)}, "retrain.min_labels: 0 must be 1 or greater"),
        ({"retrain": tr.Retrain(negative_sampling_rate=0.0)}, "retrain.negative_sampling_rate: 0.0 must lie in (0, 1]"),
        ({"retrain": tr.Retrain(negative_sampling_rate=10)}, "retrain.negative_sampling_rate: 10 must lie in (0, 1]"),
        ({"gates": [tr.NotWorse("brier", margin=-1)]}, "gates[0] NotWorse margin: -1 must be 0 or greater"),
        ({"gates": [tr.AtLeast("roc_acu", 0.7)]}, "'roc_acu' is no metric; did you mean 'roc_auc'?"),
        ({"rollout": tr.Shadow(min_predictions=-1)}, "rollout.min_predictions: -1 must be 0 or greater"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_way_out(changes: dict[str, Any], sentence: str) -> None:
    assert any(sentence in finding for finding in findings(**changes)), findings(**changes)


def test_a_key_that_may_be_absent_is_refused() -> None:
    class Loose(tr.Event):
        payment_id: str
        card_id: str | None
        at_ms: int

    requests = tr.Topic("p", Loose, key="card_id", event_time="at_ms")
    assert findings(requests=requests, features=[tr.HourOfDay()]) == (
        "requests key: Loose.card_id must always be there; take '| None' off its type",
    )


class Delay(tr.Event):
    payment_id: str
    hours: float
    at_ms: int


hours = tr.Label(
    tr.Topic("shop.delays", Delay, key="payment_id", event_time="at_ms"),
    on="payment_id",
    value="hours",
    matures_after="3d",
    if_absent=None,
)


def test_a_number_is_declared_with_its_range_and_judged_by_its_error() -> None:
    declared = declare(label=hours, model=tr.Regression(low=0.0, high=48.0, quantile=0.9))
    plan = declared.plan
    assert (plan.task, plan.low, plan.high, plan.quantile) == ("regression", 0.0, 48.0, 0.9)
    assert (plan.threshold, plan.default_score) == (48.0, 0.0)
    assert declared.gates == (tr.NotWorse("mae"),)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": tr.Regression(low=5.0, high=5.0)}, "the first the smaller"),
        ({"model": tr.Regression(low=0.0, high=48.0, quantile=1.0)}, "model.quantile: 1.0 must lie between 0 and 1"),
        ({"model": tr.Regression(low=0.0, high=48.0, threshold=50.0)}, "model.threshold: 50.0 must lie between"),
        ({"model": tr.Regression(low=0.0, high=48.0, train="torch")}, "predicts probabilities only"),
        ({"monitor": [tr.metrics.ROCAUC("1d")]}, "'roc_auc' is no metric of a Regression"),
        ({"monitor": [tr.drift.EDetector("accuracy")]}, "'accuracy' is no loss of single predictions"),
        ({"gates": [tr.NotWorse("log_loss")]}, "'log_loss' is no metric"),
        ({"amount": "amount_eur"}, "amount: has no meaning where numbers are predicted"),
        ({"auxiliary_labels": [fraud]}, "auxiliary_labels: are not counted where numbers are predicted"),
        ({"retrain": tr.Retrain(immature="weight")}, "numbers that are still to come are not made up for"),
        ({"retrain": tr.Retrain(negative_sampling_rate=0.1)}, "numbers are neither positives nor negatives"),
    ],
)
def test_what_makes_no_sense_of_a_number_is_said_at_import(changes: dict[str, Any], sentence: str) -> None:
    said = findings(**({"label": hours, "model": tr.Regression(low=0.0, high=48.0)} | changes))
    assert any(sentence in finding for finding in said), said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"amount": "amount"}, "did you mean 'amount_eur'?"),
        ({"amount": "tip_eur"}, "'tip_eur' is no feature that is a tr.Field of the requests"),
        ({"monitor": [tr.metrics.TopPrecision("1d", k=0)]}, "k: 0 must be 1 to 1,000"),
        ({"monitor": [tr.metrics.TopPrecision("1d"), tr.metrics.TopPrecision("7d", k=10)]}, "let all name the same"),
        ({"monitor": [tr.metrics.MAE("1d")]}, "'mae' is no metric of a Binary"),
        ({"gates": [tr.AtLeast("top_precision", 0.5)]}, "'top_precision' is no metric"),
    ],
)
def test_what_makes_no_sense_of_a_probability_is_said_at_import(changes: dict[str, Any], sentence: str) -> None:
    said = findings(**changes)
    assert any(sentence in finding for finding in said), said
