from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tailrace.contracts.access import MATRIX, Grant, Principal, Stream, Streams, grants
from tailrace.contracts.access_document import document
from tailrace.contracts.topics import Topics
from tailrace.errors import ConfigError
from tailrace.runtime.service import SERVICES

SHOP = Streams("shop", "shop.clicks", "shop.orders", parallel=True)
DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"


def _writers(stream: Stream) -> set[Principal]:
    return {principal for principal, access in MATRIX.items() if stream in access.writes}


def test_every_service_and_every_topic_has_its_place_in_the_matrix() -> None:
    assert set(MATRIX) == set(get_args(Principal)) > set(SERVICES)
    topics = {name for stream in get_args(Stream) for name in SHOP.topics(stream)}
    assert topics == {spec.name for spec in Topics("shop").owned()} | {"shop.clicks", "shop.orders"}


def test_what_decides_has_one_writer() -> None:
    assert _writers("predictions") == {"inference"}
    assert _writers("labels") == _writers("quality") == {"feedback"}
    assert _writers("control") == {"rollout"}


def test_private_state_is_read_by_its_owner_alone() -> None:
    owners: dict[Stream, Principal] = {"features_changelog": "features", "feedback_changelog": "feedback"}
    for stream, owner in owners.items():
        assert {principal for principal, access in MATRIX.items() if stream in access.reads} == {owner}
        assert _writers(stream) == {owner}


def test_feedback_has_rights_for_several_workers_where_it_is_parallel_and_no_more_elsewhere() -> None:
    alone = grants("feedback", Streams("shop", "shop.clicks", "shop.orders"))
    shared = grants("feedback", SHOP)
    assert Grant("group", "tailrace.shop.feedback", "READ") in alone
    assert Grant("group", "tailrace.shop.feedback", "READ", prefixed=True) in shared
    own = {"shop.join-changelog", "shop.observations"}
    assert {grant.name for grant in shared} - {grant.name for grant in alone} == own | {"shop.clicks"}
    assert Grant("topic", "shop.clicks", "WRITE") not in shared
    assert {grant.operation for grant in shared if grant.name in own} == {"READ", "WRITE"}


def test_auditor_and_app_write_nothing() -> None:
    assert not MATRIX["auditor"].writes
    assert grants("app", SHOP) == [
        Grant("topic", "shop.predictions", "READ"),
        Grant("group", "tailrace.shop.app", "READ", prefixed=True),
    ]


def test_who_reads_has_a_group_to_read_with() -> None:
    assert all(access.group or access.replays for access in MATRIX.values() if access.reads)


def test_document_shows_the_matrix_as_it_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == document(text), "the matrix changed: run `tailrace access document` and commit the result"


def test_document_without_its_marks_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the lines"):
        document("# Security\n")
