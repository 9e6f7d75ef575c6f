"""Who gets in, and who does not."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from fastapi import HTTPException
from pydantic import SecretStr

from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError
from tailrace.ops.auth import LOCAL_FILE, SESSION_S, Doorkeeper, doorkeeper, local_token

TOKEN = "t" * 32
DOOR = Doorkeeper({"ana": TOKEN, "ben": "b" * 32})


def test_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    token = local_token(tmp_path)
    assert token == local_token(tmp_path)
    assert len(token) >= 32
    assert 0o600 == stat.S_IMODE((tmp_path / LOCAL_FILE).stat().st_mode)


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_holder_of_a_token_is_known_by_name(header: str) -> None:
    assert "ana" == DOOR.who(header, "", "cross-site")


@pytest.mark.parametrize(
    "header", ["", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ", f"Bearer {'é' * 32}"]
)
def test_nobody_gets_in_without_a_known_token(header: str) -> None:
    with pytest.raises(HTTPException) as refused:
        DOOR.who(header, "", "none")
    assert 401 == refused.value.status_code


def test_session_holds_over_a_restart_but_not_for_other_tokens_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = DOOR.open_session("ben")
    assert "ben" == Doorkeeper({"ben": "b" * 32, "ana": TOKEN}).who("", session, "same-origin")
    with pytest.raises(HTTPException):
        Doorkeeper({"ana": TOKEN}).who("", session, "same-origin")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SESSION_S + 2)
    with pytest.raises(HTTPException):
        DOOR.who("", session, "same-origin")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_session_is_not_taken_from_pages_of_other_origins(site: str) -> None:
    with pytest.raises(HTTPException) as refused:
        DOOR.who("", DOOR.open_session("ana"), site)
    assert 403 == refused.value.status_code


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "ops.example.org"])
def test_other_addresses_than_loopback_are_refused_without_tokens(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only with authentication: set TAILRACE_OPS_TOKENS"):
        doorkeeper(Settings(ops_host=host, state_dir=tmp_path))
    tokens = SecretStr(f"ana:{TOKEN}")
    assert "ana" == doorkeeper(Settings(ops_host=host, ops_tokens=tokens, state_dir=tmp_path)).holder(TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_a_local_token_is_enough(host: str, tmp_path: Path) -> None:
    assert doorkeeper(Settings(ops_host=host, state_dir=tmp_path)).holder(local_token(tmp_path))


@pytest.mark.parametrize("text", ["ana:short", f":{TOKEN}", TOKEN, f"ana:{TOKEN},ben"])
def test_malformed_tokens_are_an_error_that_does_not_quote_them(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write `name:token`") as error:
        doorkeeper(Settings(ops_tokens=SecretStr(text), state_dir=tmp_path))
    assert "short" not in str(error.value).replace("shorter", "")
