"""Which outcomes stand beside their predictions, and what keeps several workers from sharing them."""

from __future__ import annotations

import re
from typing import Any

import pytest

import tailrace as tr
from tailrace.backends.topics import specs_of
from tailrace.errors import UseCaseError
from tailrace.usecase.sharing import sharing_of, workers_of


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


def declared(schema: Any, key: str, *, parallel: bool = False, **label: Any) -> tr.UseCase:
    reports = tr.Topic("reports", schema, key=key, event_time="at_ms")
    said: dict[str, Any] = {"on": "payment_id", "value": "fraud", "matures_after": "1d"} | label
    return tr.UseCase(
        name="payments_fraud",
        requests=PAYMENTS,
        prediction_id="payment_id",
        features=[tr.Field("at_ms")],
        label=tr.Label(reports, **said),
        model=tr.Binary(on_failure=tr.Default(0.02)),
        parallel_feedback=parallel,
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


@pytest.mark.parametrize(
    ("schema", "key", "said"),
    [
        (Bare, "payment_id", "publish the field 'card'"),
        (Report, "payment_id", "'reports' lie elsewhere than their requests; key them by 'card'"),
    ],
)
def test_parallel_feedback_is_refused_where_outcomes_lie_elsewhere(schema: Any, key: str, said: str) -> None:
    with pytest.raises(UseCaseError, match=f"parallel_feedback: .*{said}"):
        declared(schema, key, parallel=True)


def test_topics_of_tasks_are_there_where_feedback_is_parallel() -> None:
    alone, shared = (
        {spec.name for spec in specs_of(declared(Report, "card", parallel=parallel))} for parallel in (False, True)
    )
    assert shared - alone == {"payments_fraud.join-changelog", "payments_fraud.observations"}


def test_how_many_workers_there_may_be_is_said_with_what_to_do_for_more() -> None:
    assert workers_of(declared(Report, "card", parallel=True)).startswith("parallel: as many workers as")
    assert workers_of(declared(Report, "card")) == "one worker; for more, declare parallel_feedback=True"
    assert "key 'reports' by 'card' and declare" in workers_of(declared(Report, "payment_id"))
    assert "publish the field 'card'" in workers_of(declared(Bare, "payment_id"))
