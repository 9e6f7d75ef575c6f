"""Which outcomes stand beside their predictions, and what keeps several workers from sharing them."""

from __future__ import annotations

import re
from typing import Any

import pytest

import tailrace as tr
from tailrace.usecase.sharing import sharing_of


class Payment(tr.Event):
    payment_id: str
    card: str
    shop: str
    at_ms: int


class Report(tr.Event):
    payment_id: str
    card: str
    fraud: bool
    at_ms: int


class Bare(tr.Event):
    payment_id: str
    fraud: bool
    at_ms: int


class Numbered(tr.Event):
    payment_id: str
    card: int
    fraud: bool
    at_ms: int


PAYMENTS = tr.Topic("payments", Payment, key="card", event_time="at_ms")


def declared(schema: Any, key: str, **label: Any) -> tr.UseCase:
    reports = tr.Topic("reports", schema, key=key, event_time="at_ms")
    said: dict[str, Any] = {"on": "payment_id", "value": "fraud", "matures_after": "1d"} | label
    return tr.UseCase(
        name="payments_fraud",
        requests=PAYMENTS,
        prediction_id="payment_id",
        features=[tr.Field("at_ms")],
        label=tr.Label(reports, **said),
        model=tr.Binary(on_failure=tr.Default(0.02)),
    )


def test_outcomes_keyed_as_their_requests_are_joined_where_they_are() -> None:
    assert sharing_of(declared(Report, "card")) == ({"reports": "card"}, (), ())


def test_outcomes_that_say_the_key_of_their_request_can_be_put_beside_it() -> None:
    assert sharing_of(declared(Report, "payment_id")) == ({"reports": "card"}, ("reports",), ())


def test_outcomes_of_the_entity_that_keys_the_requests_are_joined_by_the_field_that_names_it() -> None:
    about = {"on": "card", "entity": "card", "reduce": "any"}
    assert sharing_of(declared(Report, "card", **about)) == ({"reports": "card"}, (), ())
    assert sharing_of(declared(Report, "payment_id", **about)).elsewhere == ("reports",)


@pytest.mark.parametrize(
    ("schema", "label", "said"),
    [
        (Bare, {}, "'reports' do not say which 'card'.*publish the field 'card'"),
        (Numbered, {}, "'card' of 'reports' is of another type"),
        (Report, {"on": "card", "entity": "shop", "reduce": "any"}, "about 'shop'.*keyed by 'card'"),
    ],
)
def test_what_keeps_workers_from_sharing_is_said_with_what_to_do(schema: Any, label: dict[str, str], said: str) -> None:
    (obstacle,) = sharing_of(declared(schema, "payment_id", **label)).obstacles
    assert re.search(said, obstacle)
    assert obstacle.endswith("or run one feedback worker")
