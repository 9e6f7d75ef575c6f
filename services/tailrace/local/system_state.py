"""What runs from a directory, as its state file says: the supervisor writes it, commands read it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil

from tailrace.errors import ConfigError

STATE_FILE = "tailrace.json"


class Ports(msgspec.Struct, frozen=True):
    """Ports of an embedded system, `ops` by use case; kept, so that addresses survive a restart."""

    kafka: int
    controller: int
    redis: int
    ops: dict[str, int]


class ProcessState(msgspec.Struct):
    """One supervised process as `tailrace status` shows it."""

    name: str
    pid: int
    restarts: int = 0
    gave_up: str = ""
    probes_port: int = 0


class SystemState(msgspec.Struct, kw_only=True):
    """What stands in the state file."""

    supervisor_pid: int
    started_at_ms: int
    ports: Ports
    use_cases: list[str]
    processes: list[ProcessState]


def read_state(directory: Path) -> SystemState | None:
    """The state file of a directory; None when nothing ever ran there.

    Raises:
        ConfigError: the file is damaged.
    """
    path = directory.expanduser() / STATE_FILE
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=SystemState)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is damaged ({error}); remove it, the data beside it stay") from error


def running_state(directory: Path) -> SystemState | None:
    """The state of a system that runs from this directory; None when none does."""
    state = read_state(directory)
    if state is None or state.supervisor_pid in (0, os.getpid()):
        return None
    try:
        process = psutil.Process(state.supervisor_pid)
        # A killed process keeps its id until somebody asks for its exit code, and an id is reused sooner or
        # later: ours is alive, and was there when the file was written.
        ended = process.status() == psutil.STATUS_ZOMBIE
        younger = process.create_time() * 1000 > state.started_at_ms
    except psutil.NoSuchProcess:
        return None
    return None if ended or younger else state
