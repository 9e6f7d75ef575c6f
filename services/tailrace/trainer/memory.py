"""What the trainer remembers of RETRAINING: which requests are answered, and which champions may come back."""

from __future__ import annotations

import itertools
from typing import Any

from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, RetrainRequested
from tailrace.core.recall import CHANGES, pool

REMEMBERED = 8
"""Former champions that are looked at when the concept has changed."""


class Memory:
    """Requests and their answers, in the order of the topic."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._registered: dict[str, CandidateRegistered] = {}
        self._served: dict[str, tuple[str, bool]] = {}

    def remember(self, record: Any) -> None:
        """Takes in a record of RETRAINING; a second time changes nothing."""
        if isinstance(record, RetrainRequested):
            self._served.setdefault(record.run_id, (record.champion, record.trigger in CHANGES))
        elif isinstance(record, CandidateRegistered | CandidateRefused):
            self._answered.add(record.run_id)
        if isinstance(record, CandidateRegistered):
            self._registered.setdefault(record.model_version, record)

    def is_answered(self, request: RetrainRequested) -> bool:
        """Whether a request has its answer."""
        return request.run_id in self._answered

    def former(self, request: RetrainRequested) -> list[CandidateRegistered]:
        """Former champions that may come back: those that served when a concept ended, before this request."""
        before = list(itertools.takewhile(lambda item: item[0] != request.run_id, self._served.items()))
        versions = pool([served for _, served in before], REMEMBERED)
        return [self._registered[v] for v in versions if v in self._registered and v != request.champion]
