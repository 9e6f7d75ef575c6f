"""Leaving something that failed alone for a while."""

from __future__ import annotations


class Backoff:
    """When to try again: at once at first, then after a pause that doubles with every failure.

    Args:
        first_ms: Pause after the first failure.
        longest_ms: Pause beyond which it grows no more.
    """

    def __init__(self, first_ms: int, longest_ms: int) -> None:
        self._first_ms = first_ms
        self._longest_ms = longest_ms
        self._pause_ms = 0
        self._failed_at_ms = 0

    def due(self, now_ms: int) -> bool:
        """Whether to try now."""
        # A wall clock that was set back must not make the pause longer: hence both ends.
        return not 0 <= now_ms - self._failed_at_ms < self._pause_ms

    def failed(self, now_ms: int) -> int:
        """Takes note of a failure; returns the pause, milliseconds."""
        self._pause_ms = min(self._pause_ms * 2, self._longest_ms) or self._first_ms
        self._failed_at_ms = now_ms
        return self._pause_ms

    def succeeded(self) -> None:
        """Takes note of a success."""
        self._pause_ms = 0

    @property
    def pausing(self) -> bool:
        """Whether the last try failed."""
        return self._pause_ms > 0
