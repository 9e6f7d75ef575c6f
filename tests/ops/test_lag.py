"""Lag of services that have several consumer groups."""

from __future__ import annotations

import math

from tailrace.ops.lag import Lag, by_service


def test_a_service_is_as_late_as_the_latest_of_its_groups_and_has_the_records_of_all_to_read() -> None:
    lags = {"features": Lag(1, 0.5), "feedback": Lag(10, 2.0), "feedback-monitor": Lag(4, 3.0)}
    assert by_service(lags) == {"features": Lag(1, 0.5), "feedback": Lag(14, 3.0)}


def test_where_one_group_is_unknown_its_service_is() -> None:
    found = by_service({"feedback": Lag(10, math.nan), "feedback-monitor": Lag(math.nan, 3.0)})
    assert math.isnan(found["feedback"].seconds)
    assert math.isnan(found["feedback"].records)
