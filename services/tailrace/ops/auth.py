"""Who may use the admin API: bearer tokens for programs, a session cookie for the console."""

from __future__ import annotations

import getpass
import ipaddress
import json
import os
import secrets
from pathlib import Path
from typing import Annotated

from fastapi import Cookie, Header, HTTPException
from itsdangerous import BadSignature, URLSafeTimedSerializer

from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError

LOCAL_FILE = "ops.token"
COOKIE = "tailrace_session"
MIN_CHARACTERS = 32
SESSION_S = 43_200


class Doorkeeper:
    """Knows the tokens, and the sessions opened with them; a session holds while the tokens stay as they are.

    Args:
        tokens: Token by the name of its holder.
    """

    def __init__(self, tokens: dict[str, str]) -> None:
        self._tokens = tokens
        self._sessions = URLSafeTimedSerializer(json.dumps(sorted(tokens.items())), salt="tailrace console")

    def holder(self, token: str) -> str | None:
        """Name of the holder of a token; None when nobody holds it."""
        found = None
        for name, known in self._tokens.items():
            # Every token is compared, each in constant time: the answer's delay says nothing.
            if secrets.compare_digest(known.encode(), token.encode()):
                found = name
        return found

    def open_session(self, name: str) -> str:
        """A signed statement that the bearer is `name`, good for `SESSION_S`."""
        return str(self._sessions.dumps(name))

    def _session(self, cookie: str) -> str | None:
        try:
            return str(self._sessions.loads(cookie, max_age=SESSION_S))
        except BadSignature:
            return None

    def who(
        self,
        authorization: Annotated[str, Header()] = "",
        tailrace_session: Annotated[str, Cookie()] = "",
        sec_fetch_site: Annotated[str, Header()] = "none",
    ) -> str:
        """FastAPI dependency: the caller's name.

        Raises:
            HTTPException: 401 without a valid token or session; 403 when another site's page sent the request.
        """
        scheme, _, token = authorization.partition(" ")
        name = self.holder(token.strip()) if scheme.lower() == "bearer" else None
        if name is not None:
            return name
        # Other ports of this host are the same site to a browser, so that SameSite alone does not keep them out.
        if sec_fetch_site not in ("same-origin", "none"):
            raise HTTPException(403, "sent by a page of another origin; use a bearer token from a program instead")
        name = self._session(tailrace_session)
        if name is None:
            raise HTTPException(
                401,
                "no valid token; send `Authorization: Bearer …`, or open the address that `tailrace console` prints",
                {"WWW-Authenticate": "Bearer"},
            )
        return name


def doorkeeper(settings: Settings) -> Doorkeeper:
    """The doorkeeper that settings ask for: their tokens, or on loopback a local one.

    Raises:
        ConfigError: a token is malformed or too short, or there is none and the address is not loopback.
    """
    tokens = _configured(settings.ops_tokens.get_secret_value())
    if tokens:
        return Doorkeeper(tokens)
    if not _is_loopback(settings.ops_host):
        raise ConfigError(
            f"the admin API may listen on {settings.ops_host} only with authentication: set TAILRACE_OPS_TOKENS to "
            f"`name:token`, comma separated, each token {MIN_CHARACTERS} characters or longer"
        )
    return Doorkeeper({getpass.getuser(): local_token(settings.state_dir)})


def local_token(state_dir: Path) -> str:
    """The token of this machine's user, made on first use; only the user can read its file."""
    path = state_dir.expanduser() / LOCAL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # O_EXCL: of two processes that start at once, one makes the token and both read it.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    return path.read_text().strip()


def _configured(text: str) -> dict[str, str]:
    tokens = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, token = entry.partition(":")
        if not name or len(token) < MIN_CHARACTERS:
            raise ConfigError(
                f"TAILRACE_OPS_TOKENS: write `name:token`, comma separated, each token {MIN_CHARACTERS} characters "
                f"or longer; the entry of {name or 'nobody'!r} is not so"
            )
        tokens[name] = token
    return tokens


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
