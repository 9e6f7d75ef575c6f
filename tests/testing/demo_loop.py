"""The loop of `make demo` in one process: its use case and its stream, judged as the demo judges them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tailrace.backends.settings import Settings
from tailrace.local.demo import USE_CASE, last_day_ms
from tailrace.testing.closing import Closing, closing
from tailrace.testing.decisions import Decision, DecisionLog
from tailrace.testing.simulator import Simulation, simulate
from tailrace.testing.streams import START_MS, CardFraudStream


def simulated() -> Simulation:
    """The days of the demo in which anything is decided: the last is played by timetable, without watermarks."""
    stream = CardFraudStream()
    events, outcomes = stream.tables()
    end_ms = last_day_ms(stream)
    played = _before(events, "occurred_at_ms", end_ms), _before(outcomes, "reported_at_ms", end_ms)
    return simulate(USE_CASE, *played, step="1d", settings=Settings(use_cases=Path("feature_repo")))


def decided() -> list[Decision]:
    """What is decided in it."""
    return simulated().log()


def judged(log: DecisionLog) -> Closing:
    """What the demo would say of these decisions."""
    stream = CardFraudStream()
    return closing(log, begin_ms=START_MS, drift_ms=stream.drift_ms, end_ms=last_day_ms(stream))


def _before(table: pa.Table, column: str, end_ms: int) -> pa.Table:
    return table.filter(pc.less(table[column], end_ms))
