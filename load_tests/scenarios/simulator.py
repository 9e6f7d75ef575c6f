"""The whole loop in one process on virtual time: a day of fraud traffic, from bytes to decisions.

A champion serves from the beginning, and a second model is in shadow for the first half of the day, so that most
events are scored and a good part of them twice. `day_s` is what a day of a million events would take at this rate.
"""

from __future__ import annotations

import time

from load_tests.bench import Bench, Candidate
from tailrace.testing.faults import AnyFault
from tailrace.testing.faults import Candidate as Injected
from tailrace.testing.models import logistic_model
from tailrace.testing.simulator import simulate
from tailrace.testing.streams import CardFraudStream
from tailrace.usecase.load import load_use_case

EVENTS = 100_000
SHORT = False
DAY = 1_000_000
LIMITS = {"day_s": 120.0}


def tailrace(bench: Bench) -> float:
    """Simulated events per second, crashes, disorder and drift left out."""
    use_case = load_use_case(bench.settings.use_cases, "card_fraud")
    stream = CardFraudStream(
        seed=bench.seed,
        days=1,
        drift_day=1,
        per_day=bench.events,
        cards=max(bench.events // 20, 100),
        merchants=max(bench.events // 200, 20),
    )
    tables = stream.tables()
    faults: list[AnyFault] = []
    for number, at in enumerate(("0s", "1h")):
        path = bench.directory / f"simulated-{number}.onnx"
        path.write_bytes(logistic_model(use_case.plan, {"amount_eur": 0.01 + 0.001 * number}, -4.0))
        faults.append(Injected(str(path), at=at))
    since = time.perf_counter()
    loop = simulate(use_case, *tables, faults=faults, settings=bench.settings)
    rate = loop.counts.events / (time.perf_counter() - since)
    if loop.counts.predictions != loop.counts.events or not loop.counts.shadow_predictions:
        raise RuntimeError(f"something was not scored: {loop.counts}")
    bench.notes["day_s"] = DAY / rate
    return rate


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace}
FLOORS: dict[str, float] = {}
