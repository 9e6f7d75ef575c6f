"""Event produced to prediction readable, at 1,000 events per second through features and inference.

Arrivals are a Poisson process; latency counts from the intended send time until a `read_committed` reader holds
the prediction. Ours computes twelve windowed features, writes the online store, and predicts exactly
once. The agent of stock Faust keeps the same twelve features in windowed tables and scores each event, at least
once and without a store; `faust, no windows` scores numbers of the event alone, for the report. The figure is
the p99; `EVENTS` sets the length of a run, a second for every thousand.
"""

from __future__ import annotations

import functools

import msgspec
import numpy as np

from load_tests import services, streams, workload
from load_tests.bench import Bench, Candidate
from load_tests.generator import PROBE, Load, await_flow, run_load
from load_tests.peers.candidates import Peer, started
from tailrace.backends.kafka import read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.records import FeatureRow, Prediction
from tailrace.contracts.topics import Topics
from tailrace.usecase.declaration import UseCase

RATE = 1_000.0
WARM_UP_S = 3.0
START_S = 60.0


def tailrace(bench: Bench, *, rate: float = RATE) -> float:
    """P99 of features and inference, milliseconds."""
    with workload.declared(bench) as (settings, case):
        workload.promote(settings, case)
        processes = {name: services.service(name, case.name) for name in ("features", "inference")}
        with services.running(settings, processes) as alive:
            p99 = _p99(bench, settings, case.requests.name, Topics(case.name).predictions, alive, rate)
        bench.notes |= _stages(settings, case, rate)
    if bench.notes["missing"] or bench.notes["twice"]:
        raise AssertionError(f"exactly once is broken: {bench.notes}")
    return p99


def _stages(settings: Settings, case: UseCase, rate: float) -> dict[str, float]:
    """How long after the event was produced its row lay on FEATURES, and its prediction was made: p50 and p99."""
    topics = Topics(case.name)
    row_of = msgspec.json.Decoder(FeatureRow).decode
    prediction_of = msgspec.json.Decoder(Prediction).decode
    features, predicted = [], []
    for message in read_topic(settings, topics.features):
        if message.value is not None and _counts((row := row_of(message.value)).event_id, rate):
            features.append(message.timestamp_ms - row.produced_at_ms)
    for message in read_topic(settings, topics.predictions):
        if message.value is not None and _counts((made := prediction_of(message.value)).event_id, rate):
            predicted.append(made.predicted_at_ms - made.produced_at_ms)
    return {
        f"{stage}_p{q}_ms": float(np.percentile(spent, q))
        for stage, spent in (("features", features), ("predicted", predicted))
        for q in (50, 99)
    }


def _counts(event_id: str, rate: float) -> bool:
    """Whether an event is neither a probe nor of the warm-up."""
    return not event_id.startswith(PROBE) and int(event_id) >= WARM_UP_S * rate


def faust(bench: Bench, *, script: str, mode: str, rate: float = RATE) -> float:
    """P99 of a stock Faust agent, milliseconds."""
    source, sink = streams.fresh("events"), streams.fresh("faust")
    peer = Peer(script=script, environment="faust", mode=mode)
    with streams.made(bench.settings, [source, sink]), started(peer, bench, source, sink) as alive:
        return _p99(bench, bench.settings, source, sink, alive, rate)


def _p99(bench: Bench, settings: Settings, source: str, sink: str, alive: services.Alive, rate: float) -> float:
    await_flow(settings, source, sink, timeout_s=START_S, alive=alive)
    load = Load(
        source=source,
        sink=sink,
        rate=rate,
        duration_s=WARM_UP_S + bench.events / rate,
        warm_up_s=WARM_UP_S,
        seed=bench.seed,
    )
    outcome = run_load(settings, load, alive=alive)
    for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p99.9_ms", 0.999)):
        bench.notes[name] = outcome.latencies.quantile_ms(q)
    bench.notes |= {
        "generator_late_p99_ms": outcome.lateness.quantile_ms(0.99),
        "missing": outcome.missing,
        "twice": outcome.twice,
    }
    return bench.notes["p99_ms"]


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace}
PEERS: dict[str, Candidate] = {
    "faust": functools.partial(faust, script="windows_faust", mode="score"),
    "faust, no windows": functools.partial(faust, script="scoring_faust", mode="latency"),
}
FLOORS = {"faust": 3.0}
UNIT = "ms"
EVENTS = 5_000
LIMITS = {"p50_ms": 40.0, "p99_ms": 120.0}
