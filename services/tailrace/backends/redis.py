"""Redis clients. Nothing is tried again inside them: a retry stretches a time-out many times over."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tailrace.backends.settings import Settings


def client(settings: Settings, *, timeout_s: float) -> redis.Redis:
    """A client of the online store.

    Args:
        settings: Address, user and certificate authority.
        timeout_s: Longest wait for a connection, and for an answer, seconds.
    """
    options: dict[str, Any] = {}
    if settings.redis_username:
        options["username"] = settings.redis_username
    if settings.redis_password.get_secret_value():
        options["password"] = settings.redis_password.get_secret_value()
    if settings.redis_ca:
        options["ssl_ca_certs"] = settings.redis_ca
    return redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        **options,
    )


def address(settings: Settings) -> str:
    """The online store's address without credentials."""
    return settings.redis_url.rsplit("@", 1)[-1]
