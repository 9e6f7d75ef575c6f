"""Declaring several labels, outcomes with ids, and outcomes of entities."""

from __future__ import annotations

from typing import Any

import pytest

import tailrace as tr
from tailrace.backends.access import streams_of
from tailrace.backends.topics import specs_of
from tailrace.contracts.access import grants
from tailrace.errors import UseCaseError


class Offer(tr.Event):
    offer_id: str
    customer: str
    region: str | None
    at_ms: int


class Order(tr.Event):
    order_id: str
    offer_id: str
    customer: str
    amount: float
    closed: bool
    at_ms: int


offers = tr.Topic("offers", Offer, key="customer", event_time="at_ms")
orders = tr.Topic("orders", Order, key="order_id", event_time="at_ms")
clicks = tr.Topic("clicks", Order, key="order_id", event_time="at_ms")
label = tr.Label(orders, on="offer_id", value="amount", matures_after="7d")


def declare(**changes: Any) -> tr.UseCase:
    arguments: dict[str, Any] = {
        "name": "shop",
        "requests": offers,
        "prediction_id": "offer_id",
        "features": [tr.HourOfDay()],
        "label": label,
        "model": tr.Binary(),
    }
    return tr.UseCase(**(arguments | changes))


def revenue(**changes: Any) -> tr.Label:
    said: dict[str, Any] = {"name": "revenue", "on": "offer_id", "value": "amount", "matures_after": "7d"}
    return tr.Label(orders, **(said | changes))


def test_labels_are_told_apart_by_name_and_their_topics_are_made_and_may_be_written_once_each() -> None:
    click = tr.Label(clicks, on="offer_id", value="closed", matures_after="30m")
    declared = declare(auxiliary_labels=[click, revenue(outcome_id="order_id", reduce="sum")])
    assert ["amount", "closed", "revenue"] == [one.name for one in declared.labels]
    assert ["offers", "orders", "clicks"] == [spec.name for spec in specs_of(declared)][:3]
    written = {grant.name for grant in grants("labeller", streams_of(declared)) if grant.operation == "WRITE"}
    assert {"orders", "clicks"} == written


def test_entity_of_a_label_travels_with_every_prediction() -> None:
    declared = declare(
        label=tr.Label(orders, on="offer_id", entity="offer_id", value="amount", matures_after="2d", reduce="any")
    )
    assert ("customer", "offer_id") == declared.plan.entities


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (label, "auxiliary_labels[0].name: 'amount' is the name of another label"),
        (revenue(name="a b"), "auxiliary_labels[0].name: 'a b' must be letters, digits"),
        (revenue(outcome_id="order"), "auxiliary_labels[0].outcome_id: Order has no field 'order'"),
        (revenue(outcome_id="order_id"), "auxiliary_labels[0].reduce: say how outcomes become one label"),
        (revenue(reduce="sum"), "auxiliary_labels[0].reduce: all outcomes of an event are revisions of one"),
        (revenue(outcome_id="order_id", reduce="summ"), "'summ' is no rule of reduction; did you mean 'sum'?"),
        (revenue(left="amount", reduce="any"), "auxiliary_labels[0].left: Order.amount must be bool, it is float"),
        (revenue(entity="customers", reduce="any"), "auxiliary_labels[0].entity: Offer has no field 'customers'"),
        (revenue(entity="region", reduce="any"), "auxiliary_labels[0].entity: Offer.region must always be there"),
        (revenue(source="region"), "auxiliary_labels[0].source: Order has no field 'region'"),
        (revenue(trust={"*": "human"}), "auxiliary_labels[0].trust: nothing is said of who reports"),
        (
            revenue(source="order_id", trust={"a": "humans"}),
            "'humans' is no tier of trust; did you mean 'human'?",
        ),
        (
            revenue(
                source="order_id",
                trust={"a": "human", "*": "user"},
                entity="customer",
                on="customer",
                reduce="any",
            ),
            "auxiliary_labels[0].trust: outcomes of an entity are of one tier",
        ),
        (
            revenue(attribution="linear"),
            "auxiliary_labels[0].attribution: 'linear' has no effect on outcomes of single",
        ),
        (
            revenue(entity="customer", on="customer", reduce="any", attribution="last"),
            "'last' is no rule of attribution; did you mean 'last_touch'?",
        ),
        (
            tr.Label(
                tr.Topic("orders", Order, key="order_id", event_time="at_ms"),
                name="b",
                on="offer_id",
                value="amount",
                matures_after="1d",
            ),
            "auxiliary_labels[0].topic: 'orders' is declared twice; let both labels name the same tr.Topic",
        ),
    ],
)
def test_a_wrong_label_is_named_with_its_place_and_the_way_out(wrong: tr.Label, sentence: str) -> None:
    with pytest.raises(UseCaseError) as caught:
        declare(auxiliary_labels=[wrong])
    assert any(sentence in finding for finding in caught.value.findings), caught.value.findings
