from __future__ import annotations

import base64
import uuid

import pytest

from tailrace.local import broker


@pytest.mark.parametrize("first_byte", [0xF8, 0xFB, 0x00, 0xFF])
def test_cluster_id_never_looks_like_an_option(first_byte: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # 0xF8 to 0xFB encode to a leading dash.
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=bytes([first_byte]) + bytes(15)))
    cluster = broker._cluster_id()
    assert not cluster.startswith("-")
    assert 16 == len(base64.urlsafe_b64decode(cluster + "=="))
