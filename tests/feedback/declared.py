"""Use cases and predictions that several tests share; what is particular to a test stands in the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tailrace.contracts.records import Prediction, Source
from tailrace.core.scoring import on_grid
from tailrace.core.window_spec import grid_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

_PAYMENTS = """
import tailrace as tr


class Payment(tr.Event):
    payment_id: str
    card: str
    channel: str
    amount: float
    at_ms: int


class Report(tr.Event):
    payment_id: str
    loss: float
    at_ms: int
    revision: int = 0
    withdrawn: bool = False


payments = tr.Topic("{name}.payments", Payment, key="card", event_time="at_ms")
reports = tr.Topic("{name}.reports", Report, key="payment_id", event_time="at_ms")
usecase = tr.UseCase(
    name="{name}",
    requests=payments,
    prediction_id="payment_id",
    features=[tr.Field("amount"), tr.Field("at_ms")],
    label=tr.Label(reports, on="payment_id", value="loss", matures_after="1d", {label}),
    slices=["channel"],
    model=tr.Binary(on_failure=tr.Default(0.02)),
    {policies}
)
"""
_DELIVERIES = """
import tailrace as tr


class Order(tr.Event):
    order_id: str
    city: str
    distance_km: float
    at_ms: int


class Delivered(tr.Event):
    order_id: str
    minutes: float
    at_ms: int
    revision: int = 0


orders = tr.Topic("orders", Order, key="city", event_time="at_ms")
delivered = tr.Topic("delivered", Delivered, key="order_id", event_time="at_ms")
usecase = tr.UseCase(
    name="deliveries",
    requests=orders,
    prediction_id="order_id",
    features=[tr.Field("distance_km"), *tr.GroupBy(orders, by="city", windows=["1h"]).aggregate(tr.Count())],
    label=tr.Label(delivered, on="order_id", value="minutes", if_absent=None, {label}),
    slices=["city"],
    {policies}
)
"""


def payments(folder: Path, name: str, *, label: str, policies: str) -> UseCase:
    """Payments that turn out to be a loss; arguments of the label beside its field, and of the use case."""
    return _declared(folder, name, _PAYMENTS.format(name=name, label=label, policies=policies))


def deliveries(folder: Path, *, label: str, policies: str) -> UseCase:
    """Orders that take some minutes; arguments as of `payments`."""
    return _declared(folder, "deliveries", _DELIVERIES.format(label=label, policies=policies))


def prediction(
    declared: UseCase, event: str, at_ms: int, score: float = 0.5, *, variant: str = "champion", **said: Any
) -> Prediction:
    """A prediction as the champion's first version makes it, but for what is `said` of it."""
    threshold = declared.plan.threshold
    score = score if grid_of(declared.plan) else float(on_grid(np.array([score]))[0])
    usual: dict[str, Any] = {
        "prediction_id": f"{event}:{variant}",
        "event_id": event,
        "use_case": declared.name,
        "key": "k",
        "entities": {},
        "slices": {},
        "event_time_ms": at_ms,
        "predicted_at_ms": at_ms,
        "variant": variant,
        "model_version": "1",
        "model_digest": "",
        "epoch": 1,
        "score": score,
        "decision": score >= threshold,
        "threshold": threshold,
        "propensity": 1.0,
        "features": [0.5] * len(declared.plan.order),
        "ages_ms": {},
        "fingerprint": "",
        "degraded": [],
        "source": Source(declared.requests.name, 0, 0),
        "produced_at_ms": at_ms,
    }
    return Prediction(**(usual | said))


def _declared(folder: Path, name: str, module: str) -> UseCase:
    (folder / name).mkdir(parents=True)
    (folder / name / "usecase.py").write_text(module)
    return load_use_case(folder, name)
