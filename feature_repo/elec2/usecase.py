"""Elec2: will the electricity price of New South Wales be above its mean of the last day?

The label of each half hour is known with the next one. Demand and prices drift from season to
season, so a model trained every day stays ahead of one that is trained once.
"""

import tailrace as tr


class HalfHour(tr.Event):
    """A settlement period of the market; prices, demand and transfer are scaled to [0, 1]."""

    event_id: str
    market: str
    day: int
    period: float
    nswdemand: float
    vicprice: float
    vicdemand: float
    transfer: float
    event_time_ms: int


class Movement(tr.Event):
    """Whether the price was above its mean of the last 24 hours."""

    event_id: str
    label: bool
    outcome_time_ms: int


half_hours = tr.Topic("elec2.half_hours", HalfHour, key="market", event_time="event_time_ms")
movements = tr.Topic("elec2.movements", Movement, key="event_id", event_time="outcome_time_ms")
up = tr.Label(movements, on="event_id", value="label", matures_after="1h", closes="outcome")

usecase = tr.UseCase(
    name="elec2",
    requests=half_hours,
    prediction_id="event_id",
    features=[
        tr.Field("period"),
        tr.Field("day"),
        tr.Field("nswdemand"),
        tr.Field("vicprice"),
        tr.Field("vicdemand"),
        tr.Field("transfer"),
        *tr.GroupBy(half_hours, by="market", windows=["1d"]).aggregate(
            tr.Mean("nswdemand"), tr.Mean("vicprice"), tr.Mean("transfer")
        ),
    ],
    label=up,
    model=tr.Binary(train="boosting", threshold=0.5, on_failure=tr.Default(0.5)),
    monitor=[
        tr.metrics.Accuracy("1d"),
        tr.metrics.LogLoss("7d"),
        tr.metrics.ROCAUC("7d"),
        tr.drift.PSI(every="7d"),
        tr.drift.EDetector("log_loss"),
        tr.drift.ADWIN("log_loss"),
    ],
    retrain=tr.Retrain(on=[], at_least_every="1d", at_most_every="1d", window="30d", min_labels=1_000),
    gates=[],
    rollout=tr.Immediate(),
)
