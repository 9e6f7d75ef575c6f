"""Card fraud as in the ULB machine learning group's fraud detection handbook.

Every payment's outcome is known seven days later, honest ones too. The risk of a terminal is the
share of frauds among its payments whose outcome is known.
"""

import tailrace as tr


class Payment(tr.Event):
    """A card payment at a terminal."""

    event_id: str
    customer_id: str
    terminal_id: str
    amount: float
    event_time_ms: int


class Outcome(tr.Event):
    """What became of a payment."""

    event_id: str
    label: bool
    outcome_time_ms: int


payments = tr.Topic("handbook.payments", Payment, key="customer_id", event_time="event_time_ms")
outcomes = tr.Topic("handbook.outcomes", Outcome, key="event_id", event_time="outcome_time_ms")
fraud = tr.Label(outcomes, on="event_id", value="label", matures_after="8d", closes="outcome", corrected_within="1d")

usecase = tr.UseCase(
    name="fraud_handbook",
    requests=payments,
    prediction_id="event_id",
    features=[
        tr.Field("amount"),
        tr.IsWeekend(),
        tr.IsNight(until=6),
        *tr.GroupBy(payments, by="customer_id", windows=["1d", "7d", "30d"]).aggregate(tr.Count(), tr.Mean("amount")),
        *tr.GroupBy(fraud, by="terminal_id", windows=["1d", "7d", "30d"]).aggregate(tr.Count(), tr.Mean("label")),
    ],
    label=fraud,
    amount="amount",
    model=tr.Binary(train="boosting", threshold=0.5, on_failure=tr.Default(0.0084)),
    monitor=[
        tr.metrics.PRAUC("7d"),
        tr.metrics.ROCAUC("7d"),
        tr.metrics.LogLoss("7d"),
        tr.metrics.CalibrationError("7d"),
        tr.metrics.Precision("7d"),
        tr.metrics.Recall("7d"),
        tr.metrics.TopPrecision("7d", k=100, distinct=True),
        tr.drift.PSI(every="1d", alarm=0.2),
    ],
    retrain=tr.Retrain(on=[], at_least_every="7d", at_most_every="1d", window="30d", min_labels=50_000),
    gates=[tr.NotWorse("pr_auc", margin=0.05)],
    rollout=tr.Shadow(hold="1d"),
)
