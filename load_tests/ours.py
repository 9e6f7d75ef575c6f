"""Our own services as candidates, on topics that were filled before."""

from __future__ import annotations

from load_tests import services, streams, workload
from load_tests.bench import Bench
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.usecase.declaration import UseCase

TIMEOUT_S = 120.0


def scoring(bench: Bench) -> float:
    """Events per second of the inference service, FEATURES to PREDICTIONS, exactly-once."""
    settings, case = prepared(bench)
    workload.promote(settings, case)
    rows = workload.feature_rows(
        bench.events, seed=bench.seed, fingerprint=case.plan.fingerprint, topic=case.requests.name
    )
    streams.fill(settings, Topics(case.name).features, rows)
    return _timed(settings, case, "inference", Topics(case.name).predictions, bench.events)


def windows(bench: Bench) -> float:
    """Events per second of the features service: twelve windowed features, changelog, Redis and output on."""
    settings, case = prepared(bench)
    events = workload.payments(bench.events, seed=bench.seed, at_ms=workload.event_times_ms(bench.events))
    streams.fill(settings, case.requests.name, events)
    return _timed(settings, case, "features", Topics(case.name).features, bench.events)


def prepared(bench: Bench) -> tuple[Settings, UseCase]:
    """A use case with topics and folders of its own, and the settings to run it with."""
    settings = bench.settings.model_copy(
        update={"use_cases": bench.directory / "use_cases", "state_dir": bench.directory / "state"}
    )
    name = streams.fresh("bench").replace(".", "_")
    topics = Topics(name)
    # Made first, because the broker's stamps are wanted; what is missing is made with the use case.
    streams.create(settings, [topics.features, topics.predictions])
    return settings, workload.use_case(settings, name)


def _timed(settings: Settings, case: UseCase, service: str, topic: str, events: int) -> float:
    with services.running(settings, case.name, [service]) as alive:
        return streams.output_rate(settings, topic, events, timeout_s=TIMEOUT_S, alive=alive)
