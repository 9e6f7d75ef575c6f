from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from load_tests import workers

DEADLINE_S = 20.0


@pytest.fixture
def sleepers() -> Iterator[dict[str, psutil.Process]]:
    children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"]) for _ in range(2)]
    yield {str(number): psutil.Process(child.pid) for number, child in enumerate(children)}
    for child in children:
        child.kill()
        child.wait()


def seen(processes: dict[str, psutil.Process], wanted: set[str]) -> bool:
    """Whether each of these processes was found stopped at some moment."""
    deadline = time.monotonic() + DEADLINE_S
    stopped: set[str] = set()
    while not wanted <= stopped and time.monotonic() < deadline:
        stopped |= {name for name, process in processes.items() if process.status() == psutil.STATUS_STOPPED}
    return wanted <= stopped


def test_workers_that_take_turns_are_stopped_in_between_and_run_again_afterwards(
    sleepers: dict[str, psutil.Process],
) -> None:
    with workers.in_turns(sleepers, 2):
        assert seen(sleepers, {"0", "1"})
    assert psutil.STATUS_STOPPED not in {process.status() for process in sleepers.values()}


def test_workers_without_turns_are_left_alone(sleepers: dict[str, psutil.Process]) -> None:
    with workers.in_turns(sleepers, 0):
        assert psutil.STATUS_STOPPED not in {process.status() for process in sleepers.values()}
