"""Quarantine: bad records go to the dead-letter topic, byte for byte, with the reason in a header."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Message, Output
from tailrace.contracts.records import DEAD_LETTER_HEADER, DeadLetter, Source
from tailrace.contracts.topics import Topics
from tailrace.errors import BadRecord, QuarantineExceeded

MAX_DETAIL = 500
"""Characters of detail kept: a parser may quote the record, and the original is in the value anyway."""


def dead_letter_header(use_case: str, stage: str, message: Message, error: BadRecord, now_ms: int) -> tuple[str, bytes]:
    """The header that makes a record a dead letter."""
    letter = DeadLetter(
        use_case=use_case,
        stage=stage,
        reason=error.reason,
        detail=error.detail[:MAX_DETAIL],
        source=Source(message.topic, message.partition, message.offset),
        failed_at_ms=now_ms,
    )
    return DEAD_LETTER_HEADER, encode(letter)


def dead_letter(topics: Topics, stage: str, message: Message, error: BadRecord, now_ms: int) -> Output:
    """The record to produce for a record that cannot be used."""
    header = dead_letter_header(topics.use_case, stage, message, error, now_ms)
    return Output(topics.dead_letters, message.key, message.value, headers=[*message.headers, header])


def dead_letter_of(headers: Sequence[tuple[str, bytes]]) -> DeadLetter | None:
    """What makes a record a dead letter; None for any other record.

    Raises:
        BadRecord: the header is not ours.
    """
    # The last one is ours: a producer may have sent a record with such a header of its own.
    for name, text in reversed(headers):
        if name == DEAD_LETTER_HEADER:
            return decode(DeadLetter, text)
    return None


class Quarantine:
    """Stops a service when it is the deploy that is bad, not the data.

    Args:
        max_run: Most bad records in a row.
        max_share: Largest share of bad records among the last `window` seconds' records.
        window_s: Wall time over which the share is taken.
        least: Fewest records before the share is judged.
    """

    def __init__(
        self, *, max_run: int = 20_000, max_share: float = 0.9, window_s: float = 60.0, least: int = 50_000
    ) -> None:
        self._max_run = max_run
        self._max_share = max_share
        self._window_s = window_s
        self._least = least
        self._run = 0
        self._bad = 0
        self._all = 0
        self._since = time.monotonic()

    def observe(self, good: int, bad: int) -> None:
        """Takes note of a batch.

        Raises:
            QuarantineExceeded: too many bad records; nothing of the batch may be committed.
        """
        if time.monotonic() - self._since > self._window_s:
            self._bad = self._all = 0
            self._since = time.monotonic()
        self._run = self._run + bad if good == 0 else 0
        self._bad += bad
        self._all += good + bad
        if self._run > self._max_run or (self._all >= self._least and self._bad / self._all > self._max_share):
            raise QuarantineExceeded(
                f"{self._bad} of the last {self._all} records are bad, {self._run} in a row: most likely the event type "
                "in the use case no longer fits what producers send. Compare a record of the dead-letter topic "
                "(`tailrace dead-letters`) with the declaration, then start again; nothing was lost."
            )
