"""How late outcomes come behind stream time, and how long a minute has to be waited for before it can be judged.

Outcomes that are sent once a day are no broken join, and a stream that is out of order by hours is none either: of a
minute that is just over, few of them are there. What is told within minutes where outcomes come in order is told as
much later as they come.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

STEPS = (0, 1, 5, 15, 60, 180, 720, 1_440, 2_880, 5_760, 10_080)
"""Minutes of lateness that are told apart, up to a week: what comes later is not waited for."""
IN_TIME = 0.85
"""Share of the outcomes of each hour of the day that are waited for: all but those of one day in a week, which may have
come late as an exception."""
MEMORY_H = 336.0


class LatenessData(msgspec.Struct):
    """State as it is stored: minutes that are over, minutes to wait, and outcomes of about two weeks.

    `counts` are outcomes by hour of the day and step of `STEPS`.
    """

    over: int = -1
    wait: int = 0
    counts: list[list[float]] = msgspec.field(default_factory=lambda: np.zeros((24, len(STEPS))).tolist())


class Lateness:
    """How late outcomes come.

    Args:
        data: Where to begin.
    """

    def __init__(self, data: LatenessData) -> None:
        self._data = data
        self._counts = np.array(data.counts)

    @property
    def wait(self) -> int:
        """Minutes of stream time after which a minute has most of its outcomes; 0 where they come in order."""
        return self._data.wait

    def observe(self, minutes: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Takes outcomes by the minute of their own time: int64 (n,) minutes since the epoch, and int64 (n,) how many."""
        step = np.searchsorted(STEPS, self._data.over - minutes)
        told = step < len(STEPS)
        np.add.at(self._counts, (minutes[told] // 60 % 24, step[told]), counts[told])

    def advance(self, over: int) -> None:
        """Takes that minutes before `over` are over, and works out how long to wait from now on."""
        data, hours = self._data, over // 60 - self._data.over // 60
        if hours > 0 and data.over >= 0:
            self._counts *= (1.0 - 1.0 / MEMORY_H) ** hours
        data.over = max(over, data.over)
        share = np.cumsum(self._counts, axis=1)
        data.wait = STEPS[int((share < IN_TIME * share[:, -1:]).sum(axis=1).max())]

    def snapshot(self) -> LatenessData:
        """State to store."""
        self._data.counts = self._counts.tolist()
        return self._data
