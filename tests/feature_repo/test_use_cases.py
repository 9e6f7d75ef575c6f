from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.usecase.load import load_use_case, use_case_names

REPOSITORY = Path(__file__).parents[2] / "feature_repo"


@pytest.mark.parametrize("name", use_case_names(REPOSITORY))
def test_every_use_case_of_the_repository_compiles(name: str) -> None:
    use_case = load_use_case(REPOSITORY, name)
    assert use_case.plan.order
    assert use_case.owner or name != "card_fraud"


def test_the_use_cases_that_documents_speak_of_are_there() -> None:
    assert {"card_fraud", "elec2", "fraud_handbook"} <= set(use_case_names(REPOSITORY))


def test_handbook_features_are_those_of_its_authors() -> None:
    plan = load_use_case(REPOSITORY, "fraud_handbook").plan
    spans = ("1d", "7d", "30d")
    assert set(plan.order) == {
        "amount",
        "is_weekend",
        "is_night",
        *(f"customer_id_count_{span}" for span in spans),
        *(f"customer_id_mean_amount_{span}" for span in spans),
        *(f"terminal_id_count_{span}" for span in spans),
        *(f"terminal_id_mean_label_{span}" for span in spans),
    }
    assert plan.entities == ("customer_id", "terminal_id")
