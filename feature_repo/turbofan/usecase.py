"""Turbofan: how many flights has this engine left?

An engine reports its sensors after every flight. What was left is known when it fails, or 125 flights later, when it
is still running: further ahead no sensor can see, and nobody plans maintenance.
"""

import tailrace as tr

LIFE = 125.0
"""Flights from which engines are as good as new."""
SENSORS = ("s2", "s3", "s4", "s7", "s8", "s9", "s11", "s12", "s13", "s14", "s15", "s17", "s20", "s21")
"""Those that change as an engine wears."""


class Flight(tr.Event):
    """Sensors after a flight."""

    event_id: str
    unit_id: str
    cycle: int
    s2: float
    s3: float
    s4: float
    s7: float
    s8: float
    s9: float
    s11: float
    s12: float
    s13: float
    s14: float
    s15: float
    s17: float
    s20: float
    s21: float
    event_time_ms: int


class Remaining(tr.Event):
    """Flights that were left after one of them."""

    event_id: str
    label: float
    outcome_time_ms: int


flights = tr.Topic("turbofan.flights", Flight, key="unit_id", event_time="event_time_ms")
remaining = tr.Topic("turbofan.remaining", Remaining, key="event_id", event_time="outcome_time_ms")
left = tr.Label(remaining, on="event_id", value="label", matures_after="63d", closes="outcome", if_absent=None)

usecase = tr.UseCase(
    name="turbofan",
    requests=flights,
    prediction_id="event_id",
    features=[
        tr.Field("cycle"),
        *(tr.Field(sensor) for sensor in SENSORS),
        *tr.GroupBy(flights, by="unit_id", windows=["5d"]).aggregate(*(tr.Mean(sensor) for sensor in SENSORS)),
    ],
    label=left,
    model=tr.Regression(low=0.0, high=LIFE, on_failure=tr.Default(LIFE)),
    monitor=[
        tr.metrics.MAE("7d", drop=10.0),
        tr.metrics.RMSE("7d"),
        tr.drift.EDetector("absolute_error"),
    ],
    retrain=tr.Retrain(at_least_every="30d", at_most_every="7d", min_labels=2_000, window="120d"),
    gates=[tr.NotWorse("mae", margin=2.0), tr.AtLeast("rmse", 30.0)],
    rollout=tr.Immediate(),
)
