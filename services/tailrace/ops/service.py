"""Shell of the ops service: the admin API and the console."""

from __future__ import annotations

import threading

import uvicorn

from tailrace.backends.settings import Settings
from tailrace.ops.api import create_app
from tailrace.ops.auth import doorkeeper
from tailrace.ops.follower import Follower
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Serves the admin API until the service is asked to stop.

    Raises:
        ConfigError: it would listen beyond loopback without authentication.
    """
    door = doorkeeper(settings)
    follower = Follower(settings, use_case, lifecycle)
    follower.start()
    config = uvicorn.Config(
        create_app(settings, use_case, follower, door),
        host=settings.ops_host,
        port=settings.ops_port,
        log_level="warning",
        access_log=False,
        # A page that watches holds its stream open for ever.
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # uvicorn installs its own signal handlers, which would hide the signal from the life cycle.
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    lifecycle.stopping.wait()
    server.should_exit = True
    thread.join(5)
    follower.join(5)
