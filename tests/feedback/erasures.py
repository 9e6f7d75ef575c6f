"""Requests for erasure, and where something is still told of what was erased; what tests of several parts share."""

from __future__ import annotations

from join_streams import Driver

from tailrace.backends.codec import encode
from tailrace.contracts.retraining import EraseRequested
from tailrace.contracts.topics import Topics
from tailrace.feedback.changelog import newest_of


def asked(value: str, before_ms: int, *, entity: str = "card", of: str = "disordered") -> EraseRequested:
    """A request of a person."""
    return EraseRequested(
        use_case=of, entity=entity, value=value, before_ms=before_ms, by="ana", reason="asked", requested_at_ms=0
    )


def told_of(driver: Driver, event: str) -> list[bytes]:
    """Keys of the changelog under which something is told of an event."""
    log = newest_of((key or b"", value) for key, value in driver.read(Topics(driver.use_case.name).feedback_changelog))
    return [key for key, value in log.items() if encode(event) in value]
