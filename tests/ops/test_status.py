"""The sentence over everything."""

from __future__ import annotations

import msgspec
import pytest

from tailrace.contracts.quality import Alarm
from tailrace.ops.lag import Lag
from tailrace.ops.status import Evidence, status_of

WELL = Evidence(
    unwell=[],
    lags={"features": Lag(0, 0.0)},
    lags_unknown="",
    degraded_share=0.0,
    degraded_reasons={},
    p99_ms=40.0,
    budget_ms=20.0,
    alarms=[],
    failed_run="",
    champion="3",
    predictions_seen=True,
)
ALARM = Alarm(
    use_case="uc",
    kind="metric_drop",
    subject="log_loss",
    detector="gates",
    value=0.2,
    threshold=0.1,
    since_ms=0,
    raised_at_ms=0,
    detail="log_loss 0.5 over 1d, 0.3 at the gates",
)
PSI = msgspec.structs.replace(ALARM, kind="drift", detector="PSI", subject="amount")


@pytest.mark.parametrize(
    ("change", "level", "sentence"),
    [
        ({}, "healthy", "Healthy: version 3 serves"),
        ({"predictions_seen": False, "champion": ""}, "waiting", "Waiting for events"),
        ({"champion": ""}, "waiting", "Collecting labels"),
        ({"unwell": [("inference", "has been silent for 9 s")]}, "down", "Down: inference has been silent for 9 s"),
        ({"unwell": [("trainer", "has been silent for 9 s")]}, "degraded", "Degraded: trainer has been silent"),
        ({"lags_unknown": "the broker does not answer"}, "down", "Down: the broker does not answer"),
        (
            {"degraded_share": 0.03, "degraded_reasons": {"stale": 1, "store_unavailable": 9}},
            "degraded",
            "Degraded: 3% of predictions use defaults (store_unavailable)",
        ),
        ({"lags": {"features": Lag(1_200, 75.0)}}, "degraded", "features is 75 s behind (1,200"),
        ({"alarms": [ALARM]}, "degraded", "Degraded: metric drop: log_loss 0.5 over 1d"),
        ({"alarms": [PSI]}, "degraded", "drift: 1 inputs are not as in training (amount)"),
        ({"failed_run": "base rate"}, "degraded", "the last training was refused: base rate"),
        ({"p99_ms": 900.0}, "degraded", "p99 latency is 900 ms"),
    ],
)
def test_sentence_names_the_worst_first(change: dict[str, object], level: str, sentence: str) -> None:
    found = status_of(msgspec.structs.replace(WELL, **change))
    assert level == found.level
    assert sentence in found.sentence


def test_all_that_is_amiss_is_listed_behind_what_is_broken() -> None:
    found = status_of(msgspec.structs.replace(WELL, unwell=[("features", "is away")], alarms=[ALARM], failed_run="no"))
    assert "Down: features is away" == found.sentence
    assert 3 == len(found.findings)
