"""Runs a peer's script on a topic that was filled before, and times its outputs by the broker's clock."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from load_tests import events, feature_rows, streams, workload
from load_tests.bench import Bench, Candidate
from load_tests.peers.environments import python_of
from load_tests.services import Alive, stopping
from tailrace.backends.kafka import admin, end_offsets
from tailrace.contracts.records import FeatureRow
from tailrace.local.processes import spawn

SCRIPTS = Path(__file__).parent


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's script.

    Attributes:
        script: File in this folder, without its ending.
        environment: Name of its environment.
        most: Events it is given at most, so that a slow peer takes as long as a fast one.
        mode: Passed on to the script.
        outputs: Records it writes for each event.
        timeout_s: Longest run, start of the process included.
    """

    script: str
    environment: str
    most: int = 1_000_000
    mode: str = ""
    outputs: int = 1
    timeout_s: float = 120.0


def scoring(peer: Peer, bench: Bench) -> float:
    """Events per second of a peer that scores FEATURES."""
    return _run(peer, bench, feature_rows.filled(bench))


def windows(peer: Peer, bench: Bench) -> float:
    """Events per second of a peer that computes twelve windowed features of every event."""
    return _run(peer, bench, events.filled(bench))


@contextmanager
def started(peer: Peer, bench: Bench, source: str, sink: str) -> Iterator[Alive]:
    """A peer's process for the length of the block.

    Raises:
        Unavailable: it has no environment here.
    """
    directory = bench.directory / sink
    directory.mkdir(parents=True)
    command = [str(python_of(peer.environment)), str(SCRIPTS / f"{peer.script}.py")]
    command += ["--bootstrap", bench.settings.kafka_bootstrap, "--source", source, "--sink", sink]
    command += ["--model", str(workload.network_file(bench.directory))]
    command += ["--directory", str(directory), *(["--mode", peer.mode] if peer.mode else [])]
    log = directory / "log.txt"
    child = spawn(peer.script, command, log, {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"})
    with stopping([child], [log]) as alive:
        yield alive


def mlserver(peer: Peer, bench: Bench) -> float:
    """Events per second of MLServer, from the first request until the last answer.

    Its Kafka door reads from the end on, so the topic is filled once it is up. It makes a task of each record and
    answers them all together, so the time between the answers alone would flatter it.
    """
    count = min(bench.events, peer.most)
    source, sink = streams.fresh("requests"), streams.fresh(peer.script)
    requests = [
        (row.key.encode(), _v2_request(row), partition)
        for _, value, partition in feature_rows.rows(count, seed=bench.seed, fingerprint="-", topic=source)
        for row in [msgspec.json.decode(value, type=FeatureRow)]
    ]
    headers = [("mlserver-model", b"network")]
    with streams.made(bench.settings, [source, sink]), started(peer, bench, source, sink) as alive:
        deadline = time.monotonic() + peer.timeout_s
        while not sum(end_offsets(admin(bench.settings), sink).values()):
            alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"MLServer did not come up within {peer.timeout_s:.0f} s")
            streams.fill(bench.settings, source, requests[:1], headers=headers)
            time.sleep(0.5)
        answered = len(streams.append_times_ms(bench.settings, sink))
        began_ms = time.time_ns() / 1e6
        streams.fill(bench.settings, source, requests, headers=headers)
        streams.output_rate(bench.settings, sink, answered + count, timeout_s=peer.timeout_s, alive=alive)
        return 1e3 * count / (float(streams.append_times_ms(bench.settings, sink).max()) - began_ms)


def _v2_request(row: FeatureRow) -> bytes:
    """A row in the Open Inference Protocol, which the Kafka door speaks."""
    tensor = {"name": "rows", "shape": [1, len(row.values)], "datatype": "FP32", "data": row.values}
    return msgspec.json.encode({"id": row.event_id, "inputs": [tensor]})


def _run(peer: Peer, bench: Bench, source: str) -> float:
    sink = streams.fresh(peer.script)
    with streams.made(bench.settings, [sink]), started(peer, bench, source, sink) as alive:
        wanted = min(bench.events, peer.most) * peer.outputs
        rate = streams.output_rate(bench.settings, sink, wanted, timeout_s=peer.timeout_s, alive=alive)
        return rate / peer.outputs


def _scored(**peer: Any) -> Candidate:
    return functools.partial(scoring, Peer(**peer))


def _windowed(**peer: Any) -> Candidate:
    return functools.partial(windows, Peer(**peer))


SCORING: dict[str, Candidate] = {
    "quix": _scored(script="scoring_quix", environment="quix", most=60_000),
    "bytewax": _scored(script="scoring_bytewax", environment="bytewax", most=200_000),
    "faust": _scored(script="scoring_faust", environment="faust", most=10_000, mode="agent"),
    "faust take": _scored(script="scoring_faust", environment="faust", most=10_000, mode="take"),
    "mlserver": functools.partial(mlserver, Peer(script="scoring_mlserver", environment="mlserver", most=5_000)),
    "litserve": _scored(script="scoring_litserve", environment="litserve", most=4_000),
    "ray serve": _scored(script="scoring_ray", environment="ray", most=2_000),
    "triton": _scored(script="scoring_triton", environment="triton", most=10_000),
}
"""FEATURES in, scores out; events per second."""

WINDOWS: dict[str, Candidate] = {
    "quix": _windowed(script="windows_quix", environment="quix", most=20_000, outputs=4),
    "bytewax": _windowed(script="windows_bytewax", environment="bytewax", most=200_000),
    "faust": _windowed(script="windows_faust", environment="faust", most=8_000, mode="features"),
}
"""Events in, twelve windowed features of each out; events per second."""
