"""Inference end to end: FEATURES to readable PREDICTIONS, one process, 30 columns, a small network, exactly once.

FEATURES is filled before. `tailrace` is `tailrace run inference` as deployed, and every event is counted once.
`at_least_once` is the same without transactions, `online` reads four of the columns from Redis. `speed_of_light` is the
fastest hand-written transactional loop we know of that writes the same predictions, `naive` is the loop most people write
first. Peers read the same records, run the same network on one thread, each as one worker as its documentation says,
and write event id and score, at least once, as `speed_of_light_bare` does by hand; MLServer gets the rows in its own
protocol. Model servers without a door to Kafka are asked by a client that keeps 256 requests open.
"""

from __future__ import annotations

import functools

from load_tests import feature_rows, ours, services, streams
from load_tests.bench import Bench, Candidate
from load_tests.peers import SCORING


def by_hand(bench: Bench, *, loop: str, most: int = 1_000_000) -> float:
    """Events per second of a hand-written loop, which is given `most` events at most so that no run takes long."""
    source, sink = feature_rows.filled(bench), streams.fresh(loop)
    settings = bench.settings.model_copy(update={"state_dir": bench.directory / "state" / sink, "threads": 1})
    with streams.made(settings, [sink]):
        arguments = ["-m", "load_tests.inference_loops", loop, source, sink]
        return services.rate(settings, arguments, sink, min(bench.events, most))


naive: Candidate = functools.partial(by_hand, loop="naive", most=25_000)

CANDIDATES: dict[str, Candidate] = {
    "tailrace": ours.scoring,
    "at_least_once": functools.partial(ours.scoring, twin="at_least_once"),
    "online": functools.partial(ours.scoring, online=True),
    "speed_of_light": functools.partial(by_hand, loop="speed_of_light"),
    "naive": naive,
}
PEERS = {"speed_of_light_bare": functools.partial(by_hand, loop="speed_of_light_bare"), **SCORING}
FLOORS = {"speed_of_light": 0.5, "at_least_once": 0.95, "quix": 4.0, "faust": 30.0, "mlserver": 30.0, "triton": 30.0}
EVENTS = 100_000
