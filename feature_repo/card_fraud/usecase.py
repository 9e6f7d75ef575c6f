"""Card fraud: is this payment going to be charged back?

Only frauds are reported, hours to days after the payment; a payment that nobody reports within
three days was honest.
"""

from typing import Literal

import tailrace as tr


class Transaction(tr.Event):
    """A card payment asking for authorisation."""

    transaction_id: str
    card_id: str
    merchant_id: str
    amount_eur: float
    channel: Literal["web", "pos", "atm"]
    occurred_at_ms: int


class Chargeback(tr.Event):
    """A payment that its card holder disputes."""

    transaction_id: str
    fraud: bool
    reported_at_ms: int


transactions = tr.Topic("payments.transactions", Transaction, key="card_id", event_time="occurred_at_ms", lateness="2m")
chargebacks = tr.Topic("payments.chargebacks", Chargeback, key="transaction_id", event_time="reported_at_ms")
fraud = tr.Label(chargebacks, on="transaction_id", value="fraud", matures_after="3d", if_absent=False)

usecase = tr.UseCase(
    name="card_fraud",
    version=1,
    owner="payments-risk",
    requests=transactions,
    prediction_id="transaction_id",
    features=[
        tr.Field("amount_eur"),
        tr.OneHot("channel"),
        tr.HourOfDay(),
        tr.IsWeekend(),
        *tr.GroupBy(transactions, by="card_id", windows=["1h", "1d", "7d"]).aggregate(
            tr.Count(),
            tr.Sum("amount_eur"),
            tr.Mean("amount_eur"),
            tr.Max("amount_eur"),
            tr.DistinctCount("merchant_id"),
            tr.SinceLast(),
        ),
        *tr.GroupBy(fraud, by="merchant_id", windows=["7d"]).aggregate(tr.Count(), tr.Mean("fraud")),
    ],
    label=fraud,
    model=tr.Binary(train="torch", threshold=0.5, latency_budget="20ms", on_failure=tr.Default(0.02)),
    slices=["channel"],
    monitor=[
        tr.metrics.LogLoss("1d", drop=0.05),
        tr.metrics.PRAUC("7d"),
        tr.metrics.ROCAUC("7d"),
        tr.metrics.Brier("1d"),
        tr.metrics.CalibrationError("7d"),
        tr.metrics.Accuracy("1d"),
        tr.metrics.Precision("7d"),
        tr.metrics.Recall("7d"),
        tr.metrics.F1("7d"),
        tr.drift.PSI(),
        tr.drift.EDetector("log_loss"),
        tr.drift.ADWIN("log_loss"),
    ],
    retrain=tr.Retrain(
        on=["drift", "metric_drop"], at_most_every="1d", at_least_every="7d", min_labels=2_000, window="14d"
    ),
    gates=[tr.NotWorse("log_loss"), tr.NotWorse("pr_auc", margin=0.02)],
    rollout=tr.Shadow(hold="1d"),
)
