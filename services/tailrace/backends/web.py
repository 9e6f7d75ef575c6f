"""The probe server of a service: /livez, /readyz and Prometheus /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from tailrace.errors import ConfigError


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Drops the access log: a probe every few seconds is no news."""


def serve_probes(host: str, port: int, registry: CollectorRegistry, not_ready: Callable[[], str]) -> int:
    """Serves the probes from a daemon thread.

    Args:
        host: Address to listen on. What is served is read-only and holds no record.
        port: Port; 0 picks a free one.
        registry: Metrics to expose.
        not_ready: Why the service is not ready; "" when it is.

    Returns:
        The port in use.

    Raises:
        ConfigError: the port is taken, or this machine has no such address.
    """
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            # Without the query, whose `name[]` would pass the constant labels by.
            return metrics({**environ, "QUERY_STRING": ""}, start_response)  # type: ignore[no-any-return]  # untyped library
        why = not_ready() if path == "/readyz" else ""
        known = path in ("/livez", "/readyz")
        status = "404 Not Found" if not known else "503 Service Unavailable" if why else "200 OK"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [((why or "ok") if known else "try /livez, /readyz or /metrics").encode() + b"\n"]

    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ConfigError(
            f"probes cannot be served at {host}:{port}; set TAILRACE_METRICS_PORT to a free port or to 0, "
            f"TAILRACE_METRICS_HOST to an address of this machine: {error}"
        ) from error
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server.server_port
