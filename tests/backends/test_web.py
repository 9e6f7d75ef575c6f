from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from tailrace.backends.web import serve_probes
from tailrace.errors import ConfigError


def get(host: str, port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_say_whether_and_why_not() -> None:
    why = ["reading the changelog"]
    registry = CollectorRegistry()
    Counter("seen", "Seen.", registry=registry).inc(3)
    port = serve_probes("127.0.0.1", 0, registry, lambda: why[0])
    assert (200, "ok\n") == get("127.0.0.1", port, "/livez")
    assert (503, "reading the changelog\n") == get("127.0.0.1", port, "/readyz")
    why[0] = ""
    assert (200, "ok\n") == get("127.0.0.1", port, "/readyz")
    assert "seen_total 3.0" in get("127.0.0.1", port, "/metrics")[1]
    assert 404 == get("127.0.0.1", port, "/else")[0]


def test_probes_are_served_at_the_address_asked_for_and_no_other() -> None:
    port = serve_probes("127.0.0.2", 0, CollectorRegistry(), lambda: "")
    assert 200 == get("127.0.0.2", port, "/livez")[0]
    with pytest.raises(urllib.error.URLError):
        get("127.0.0.1", port, "/livez")


def test_port_that_is_taken_is_named_with_the_setting_to_change() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}; set TAILRACE_METRICS_PORT"):
            serve_probes("127.0.0.1", port, CollectorRegistry(), lambda: "")
