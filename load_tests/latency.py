"""Latency histograms (HDR), recorded in several processes and merged."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

LONGEST_US = 600_000_000
"""Ten minutes; what takes longer is counted as this long."""
DIGITS = 3


class Latencies:
    """Latencies to three significant digits, from a microsecond to ten minutes. Not thread-safe."""

    def __init__(self, encoded: bytes | None = None) -> None:
        empty = encoded is None
        self._histogram = HdrHistogram(1, LONGEST_US, DIGITS) if empty else HdrHistogram.decode(encoded)

    def record(self, seconds: float) -> None:
        """Takes in one latency; below a microsecond it counts as one."""
        self._histogram.record_value(min(max(int(seconds * 1e6), 1), LONGEST_US))

    @property
    def count(self) -> int:
        """Number of latencies."""
        return int(self._histogram.get_total_count())

    def quantile_ms(self, q: float) -> float:
        """The latency whose rank is nearest to `q` of all, q in [0, 1], milliseconds; NaN when there are none."""
        return self._histogram.get_value_at_percentile(100 * q) / 1e3 if self.count else float("nan")

    def encode(self) -> bytes:
        """The histogram as bytes, for another process; the constructor takes them."""
        encoded: bytes = self._histogram.encode()
        return encoded

    @classmethod
    def merged(cls, parts: Iterable[Latencies]) -> Latencies:
        """All parts together, as if one process had recorded everything."""
        whole = cls()
        for part in parts:
            whole._histogram.add(part._histogram)
        return whole
