"""In-memory twins of the ports, for tests and the simulator. They are never cleverer than the real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.ports import ReadRequest, Rows
from tailrace.errors import StoreUnavailable


class MemoryOnlineStore:
    """`ports.OnlineStore` in a dict.

    `available` False makes every call raise `StoreUnavailable`, as a store that is away does.
    """

    def __init__(self) -> None:
        self.available = True
        self._cells: dict[tuple[str, str, str], dict[str, float]] = {}
        self._timestamps_ms: dict[tuple[str, str, str], int] = {}
        self._states: dict[tuple[str, str, str], bytes] = {}

    def write(
        self,
        view: str,
        entity: str,
        columns: Sequence[str],
        keys: Sequence[str],
        values: NDArray[np.float64],
        timestamps_ms: NDArray[np.int64],
        state: Sequence[bytes] | None = None,
    ) -> None:
        """Writes rows; see `ports.OnlineStore.write`."""
        self._check()
        last = {key: at for at, key in enumerate(keys)}
        for key, at in last.items():
            row = (view, entity, key)
            stamp_ms = max(int(timestamps_ms[at]), 0)
            if self._timestamps_ms.get(row, -1) > stamp_ms:
                continue
            self._timestamps_ms[row] = stamp_ms
            self._cells.setdefault(row, {}).update(zip(columns, map(float, values[at]), strict=True))
            if state is not None:
                self._states[row] = bytes(state[at])

    def read(self, requests: Sequence[ReadRequest]) -> list[Rows]:
        """Reads rows; see `ports.OnlineStore.read`."""
        self._check()
        return [self._rows(request) for request in requests]

    def ask(self, requests: Sequence[ReadRequest]) -> Callable[[], list[Rows]]:
        """Reads when the answer is wanted; see `ports.OnlineStore.ask`."""
        return lambda: self.read(requests)

    def _rows(self, request: ReadRequest) -> Rows:
        rows = [(request.view, request.entity, key) for key in request.keys]
        values = np.full((len(rows), len(request.columns)), np.nan)
        for at, row in enumerate(rows):
            cells = self._cells.get(row, {})
            values[at] = [cells.get(column, np.nan) for column in request.columns]
        stamps = np.array([self._timestamps_ms.get(row, -1) for row in rows], np.int64)
        return Rows(values, stamps, [self._states.get(row) for row in rows])

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailable("the in-memory online store was made unavailable")
