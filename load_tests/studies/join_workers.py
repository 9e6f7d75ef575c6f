"""Feedback's joins shared by one, three and again one worker, some of them killed, against a group-by of pandas.

The stream is that of `join_oracle`, with every outcome on the partition of the event that it judges. One worker
begins and is killed with SIGKILL; two more come, of which one is killed and comes back, and at last the two leave
again, one of them by SIGKILL. Afterwards every final label is compared with the oracle's, versions must be
contiguous, and the counts of QUALITY, which the monitor writes, must be those of the oracle.

    python -m load_tests.studies.join_workers [--predictions 1000000] [--json]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from confluent_kafka.admin import AdminClient

from load_tests.services import environment, service
from load_tests.studies.join_oracle import MODULE, compare, fill, run, world
from load_tests.studies.report import Figure
from tailrace.backends.kafka import admin, committed_offsets, end_offsets
from tailrace.backends.settings import Settings
from tailrace.backends.topics import apply
from tailrace.contracts.topics import Topics
from tailrace.local.processes import Child, spawn
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case
from tailrace.usecase.subscriptions import MONITOR, subscriptions

PARTITIONS, LIMIT_S = 6, 1_200.0


MODULE_OF_TASKS = (
    MODULE.replace('key="payment_id"', 'key="card"')
    .replace('key="order_id"', 'key="card"')
    .replace("    model=", "    parallel_feedback=True,\n    model=")
)
"""The use case of `join_oracle` with outcomes beside their predictions."""


class Workers:
    """Workers of feedback as they are deployed, by instance.

    Args:
        settings: Where the broker is.
        use_case: What they serve.
    """

    def __init__(self, settings: Settings, use_case: str) -> None:
        self._settings = settings
        self._use_case = use_case
        self._running: dict[int, Child] = {}
        self._started = 0
        self.killed = 0

    def start(self, instance: int) -> None:
        """Starts one."""
        self._started += 1
        log = self._settings.state_dir / "logs" / f"{self._use_case}-{instance}-{self._started}.log"
        own = environment(self._settings) | {"TAILRACE_INSTANCE": str(instance)}
        command = [sys.executable, *service("feedback", self._use_case)]
        self._running[instance] = spawn(f"feedback-{instance}", command, log, own)

    def kill(self, instance: int) -> None:
        """Ends one with SIGKILL."""
        self._running.pop(instance).kill()
        self.killed += 1

    def stop(self, instance: int) -> None:
        """Ends one as a deploy does."""
        self._running.pop(instance).stop(30)

    def check(self) -> None:
        """Raises where one has ended by itself."""
        ended = [instance for instance, child in self._running.items() if not child.running]
        if ended:
            raise RuntimeError(f"workers {ended} have ended; see {self._settings.state_dir}")

    def close(self) -> None:
        """Ends all."""
        for instance in list(self._running):
            self.stop(instance)


def plan(workers: Workers) -> list[tuple[float, Callable[[], None]]]:
    """What befalls the workers, each once a share of the records is committed."""

    def again(instance: int) -> None:
        workers.kill(instance)
        workers.start(instance)

    def three() -> None:
        workers.start(1)
        workers.start(2)

    def one() -> None:
        workers.stop(1)
        workers.kill(2)

    return [(0.1, lambda: again(0)), (0.25, three), (0.5, lambda: again(1)), (0.65, one), (0.8, lambda: again(0))]


def serve(settings: Settings, declared: UseCase) -> tuple[float, int]:
    """Runs the workers until all is consumed; gives the seconds it took, and how many were killed."""
    client, began = admin(settings), time.monotonic()
    joined, merged = (subscriptions(declared)[name] for name in ("feedback", MONITOR))
    end = _end(client, joined)
    workers = Workers(settings, declared.name)
    workers.start(0)
    ahead = plan(workers)
    try:
        while (
            (done := _done(settings, declared, "feedback", joined)) < end
            or ahead
            or (_done(settings, declared, MONITOR, merged) < _end(client, merged))
        ):
            if ahead and done >= ahead[0][0] * end:
                ahead.pop(0)[1]()
            workers.check()
            if time.monotonic() - began > LIMIT_S:
                raise TimeoutError(f"{done} of {end} records were consumed; see {settings.state_dir}")
            time.sleep(0.1)
    finally:
        workers.close()
    return time.monotonic() - began, workers.killed


def _end(client: AdminClient, names: Sequence[str]) -> int:
    return sum(sum(end_offsets(client, name).values()) for name in names)


def _done(settings: Settings, declared: UseCase, group: str, names: Sequence[str]) -> int:
    name = Topics(declared.name).group(group)
    return sum(max(offset, 0) for topic in names for offset, _ in committed_offsets(settings, name, topic).values())


def study(settings: Settings, folder: Path, predictions: int, seed: int = 0) -> list[Figure]:
    """Runs everything on a broker."""
    (folder / "oracle").mkdir(parents=True)
    (folder / "oracle" / "usecase.py").write_text(MODULE_OF_TASKS)
    declared = load_use_case(folder, "oracle")
    own = settings.model_copy(update={"partitions": PARTITIONS, "use_cases": folder})
    apply(own, declared)
    of = world(predictions, seed)
    sent = fill(own, declared, of, PARTITIONS, together=True)
    seconds, killed = serve(own, declared)
    figures = [Figure("predictions", int(len(of.times_ms) + of.shadowed.sum())), Figure("records", sent)]
    figures += [Figure("kills", killed, 4, ">="), Figure("seconds", seconds)]
    return figures + compare(own, declared, of)


if __name__ == "__main__":
    run(study)
