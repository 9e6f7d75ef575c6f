from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tailrace.local.processes import free_port, port_is_free, spawn

PARENT = """
import sys
from pathlib import Path
from tailrace.local.processes import spawn
print(spawn("sleeper", ["sleep", "60"], Path(sys.argv[1])).pid, flush=True)
input()
"""


def _until(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux only")
def test_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    assert _until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn("deaf", ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"], log)
    assert _until(lambda: b"deaf" in log.read_bytes())
    child.stop(0.1)
    assert -signal.SIGKILL == child.exit_code


def test_paused_child_still_ends_in_order(tmp_path: Path) -> None:
    child = spawn("paused", ["sleep", "60"], tmp_path / "log")
    os.kill(child.pid, signal.SIGSTOP)
    child.stop(10)
    assert -signal.SIGTERM == child.exit_code


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    for word in ("one", "two"):
        spawn("echo", ["echo", word], tmp_path / "log").process.wait()
    assert "one\ntwo\n" == (tmp_path / "log").read_text()


def test_port_of_a_listener_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not port_is_free(listener.getsockname()[1])
    assert port_is_free(free_port())
