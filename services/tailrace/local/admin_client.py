"""The admin API as the command line uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError, TailraceError
from tailrace.local.supervisor import connected, ops_url
from tailrace.ops.auth import LOCAL_FILE

TIMEOUT_S = 60.0
STARTING_S = 20.0
"""How long a service of this machine that is just starting is waited for."""


class AdminClient:
    """A client of one use case's admin API.

    Args:
        settings: Names the API and the token, or where this machine's own are found.
        use_case: The use case.
        directory: Folder of an embedded system; None for the one of the settings.

    Raises:
        ConfigError: there is no token to be had.
    """

    def __init__(self, settings: Settings, use_case: str, directory: Path | None = None) -> None:
        self.url = ops_url(settings, use_case, directory)
        here = connected(settings, directory)
        self.token = settings.ops_token.get_secret_value() or _local_token(here)
        self._patience_s = STARTING_S if here is not settings else 0.0
        self._http = httpx.Client(
            base_url=self.url + "/api/v1", headers={"Authorization": f"Bearer {self.token}"}, timeout=TIMEOUT_S
        )

    def get(self, path: str, **query: str) -> Any:
        """Answer to a read, as plain data.

        Raises:
            TailraceError: the API does not answer, or refuses; its own words are passed on.
        """
        return self._ask("GET", path, params=query)

    def post(self, path: str, **body: Any) -> Any:
        """Answer to an action; raises as `get` does."""
        return self._ask("POST", path, json=body)

    def stream(self, path: str) -> Iterator[Any]:
        """Data of server-sent events as they come; raises as `get` does."""
        try:
            with self._http.stream("GET", path, timeout=None) as response:  # a stream has no end
                if response.is_error:
                    response.read()
                    raise _refused(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
        except httpx.TransportError as error:
            raise self._away(error) from error

    def _ask(self, method: str, path: str, **what: Any) -> Any:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                response = self._http.request(method, path, **what)
                if response.is_success:
                    return response.json()
                if "Retry-After" not in response.headers or time.monotonic() > deadline:
                    raise _refused(response)
            except httpx.ConnectError as error:
                if time.monotonic() > deadline:
                    raise self._away(error) from error
            except httpx.TransportError as error:
                raise self._away(error) from error
            time.sleep(0.2)

    def _away(self, error: httpx.TransportError) -> TailraceError:
        return TailraceError(
            f"the admin API at {self.url} does not answer ({error}); start it with `tailrace up`, or say where it is "
            "with TAILRACE_OPS_URL"
        )


def _refused(response: httpx.Response) -> TailraceError:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:300] or response.reason_phrase
    if isinstance(detail, list):
        detail = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in detail)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return ConfigError(f"the admin API does not know this token; set TAILRACE_OPS_TOKEN ({detail})")
    return TailraceError(str(detail))


def _local_token(settings: Settings) -> str:
    path = settings.state_dir.expanduser() / LOCAL_FILE
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"no token: {path} cannot be read ({error.strerror}); start the system with `tailrace up`, or set "
            "TAILRACE_OPS_TOKEN and TAILRACE_OPS_URL"
        ) from error
