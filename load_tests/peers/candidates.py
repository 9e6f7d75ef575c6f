"""Runs a peer's script on a topic that was filled before, and times its outputs by the broker's clock."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from load_tests import streams, workload
from load_tests.bench import Bench, Candidate
from load_tests.peers.environments import python_of
from load_tests.services import Alive, stopping
from tailrace.backends.settings import Settings
from tailrace.local.processes import spawn

SCRIPTS = Path(__file__).parent


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's script.

    Attributes:
        script: File in this folder, without its ending.
        environment: Name of its environment; "" is our own.
        most: Events it is given at most, so that a slow peer takes as long as a fast one.
        mode: Passed on to the script.
        outputs: Records it writes for each event.
        timeout_s: Longest run, start of the process included.
    """

    script: str
    environment: str = ""
    most: int = 1_000_000
    mode: str = ""
    outputs: int = 1
    timeout_s: float = 120.0


def scoring(peer: Peer, bench: Bench) -> float:
    """Events per second of a peer that scores FEATURES."""
    return _run(peer, bench, _features(bench.settings.kafka_bootstrap, bench.events, bench.seed, bench.settings))


def windows(peer: Peer, bench: Bench) -> float:
    """Events per second of a peer that computes twelve windowed features of every event."""
    return _run(peer, bench, _events(bench.settings.kafka_bootstrap, bench.events, bench.seed, bench.settings))


@contextmanager
def started(peer: Peer, bench: Bench, source: str, sink: str, *, events: int) -> Iterator[Alive]:
    """A peer's process for the length of the block.

    Raises:
        Unavailable: it has no environment here.
    """
    directory = bench.directory / sink
    directory.mkdir(parents=True)
    command = [str(python_of(peer.environment)), str(SCRIPTS / f"{peer.script}.py")]
    command += ["--bootstrap", bench.settings.kafka_bootstrap, "--source", source, "--sink", sink]
    command += ["--model", str(workload.network_file(bench.directory)), "--events", str(events)]
    command += ["--directory", str(directory), *(["--mode", peer.mode] if peer.mode else [])]
    log = directory / "log.txt"
    child = spawn(peer.script, command, log, {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"})
    with stopping([child], [log]) as alive:
        yield alive


def _run(peer: Peer, bench: Bench, source: str) -> float:
    events = min(bench.events, peer.most)
    sink = streams.fresh(peer.script)
    streams.create(bench.settings, [sink])
    with started(peer, bench, source, sink, events=events) as alive:
        wanted = events * peer.outputs
        return streams.output_rate(bench.settings, sink, wanted, timeout_s=peer.timeout_s, alive=alive)


class _Key(msgspec.Struct, frozen=True):
    bootstrap: str
    events: int
    seed: int


_FILLED: dict[tuple[str, _Key], str] = {}
"""Topics that are filled already: one for all candidates of a round."""


def _features(bootstrap: str, events: int, seed: int, settings: Settings) -> str:
    key = ("features", _Key(bootstrap, events, seed))
    if key not in _FILLED:
        topic = streams.fresh("features")
        streams.create(settings, [topic])
        streams.fill(settings, topic, workload.feature_rows(events, seed=seed, fingerprint="-", topic="events"))
        _FILLED[key] = topic
    return _FILLED[key]


def _events(bootstrap: str, events: int, seed: int, settings: Settings) -> str:
    key = ("events", _Key(bootstrap, events, seed))
    if key not in _FILLED:
        topic = streams.fresh("events")
        streams.create(settings, [topic])
        streams.fill(settings, topic, workload.payments(events, seed=seed, at_ms=workload.event_times_ms(events)))
        _FILLED[key] = topic
    return _FILLED[key]


SCORING: dict[str, Candidate] = {
    "naive": functools.partial(scoring, Peer(script="scoring_naive", most=100_000)),
    "fastest by hand": functools.partial(scoring, Peer(script="scoring_fastest")),
}
WINDOWS: dict[str, Candidate] = {}
