"""Our own services as candidates, on topics that were filled before."""

from __future__ import annotations

from load_tests import events, feature_rows, services, streams, workload
from load_tests.bench import Bench
from tailrace.contracts.topics import Topics

ONLINE = 4
"""Columns that are read from the online store, where some are."""


def scoring(bench: Bench, *, online: bool = False, twin: str = "") -> float:
    """Events per second from FEATURES to PREDICTIONS; every event is counted once.

    Args:
        bench: Broker, scratch folder, events and seed.
        online: Whether four of the thirty columns are label windows read from the online store.
        twin: Which of `load_tests.twins` runs; "": the service as deployed.
    """
    fields = workload.ALL - ONLINE * online
    with workload.declared(bench, fields=fields, labels=online) as (settings, case):
        workload.promote(settings, case)
        if online:
            feature_rows.store_labels(settings, case)
        topics = Topics(case.name)
        rows = feature_rows.rows(
            bench.events,
            seed=bench.seed,
            fingerprint=case.plan.fingerprint,
            topic=case.requests.name,
            width=feature_rows.WIDTH - ONLINE * online,
        )
        streams.fill(settings, topics.features, rows)
        process = ["-m", "load_tests.twins", twin, case.name] if twin else services.service("inference", case.name)
        return services.rate(settings, process, topics.predictions, bench.events, each_once=True)


def windows(bench: Bench, *, twin: str = "") -> float:
    """Events per second from events to FEATURES: twelve windowed features; `twin` as above."""
    with workload.declared(bench, events=events.filled(bench), fields=0) as (settings, case):
        process = ["-m", "load_tests.twins", twin, case.name] if twin else services.service("features", case.name)
        return services.rate(settings, process, Topics(case.name).features, bench.events)
