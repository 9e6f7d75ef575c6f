"""In-memory twins of the ports, for tests and the simulator. They are never cleverer than the real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.ports import DIGEST_TAG, ReadRequest, RegisteredModel, Rows
from tailrace.errors import RegistryUnavailable, StoreUnavailable


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


class MemoryRegistry:
    """`ports.Registry` in a dict; bundles are files all the same, because workers open them by their address.

    Args:
        bundles: Folder to keep them in.
    """

    def __init__(self, bundles: Path) -> None:
        self._bundles = bundles
        self._versions: dict[str, list[RegisteredModel]] = {}
        self._aliases: dict[str, dict[str, str]] = {}

    def register(
        self, use_case: str, run_id: str, bundle: str, metrics: Mapping[str, float], lineage: Mapping[str, str]
    ) -> RegisteredModel:
        """Stores a bundle directory and makes a version of it; see `ports.Registry.register`."""
        versions = self._versions.setdefault(use_case, [])
        known = next((model for model in versions if model.run_id == run_id), None)
        if known is not None:
            return known
        digest = lineage[DIGEST_TAG]
        kept = self._bundles / digest.removeprefix("sha256:")
        shutil.copytree(bundle, kept, dirs_exist_ok=True)
        model = RegisteredModel(
            version=str(len(versions) + 1),
            run_id=run_id,
            bundle_uri=kept.resolve().as_uri(),
            digest=digest,
            aliases=(),
            metrics=dict(metrics),
            tags=dict(lineage),
            created_at_ms=0,
        )
        versions.append(model)
        return model

    def alias(self, use_case: str, name: str, version: str) -> None:
        """Points an alias at a version; see `ports.Registry.alias`."""
        if version not in {model.version for model in self._versions.get(use_case, [])}:
            raise RegistryUnavailable(f"alias {name} of {use_case} not moved: there is no version {version}")
        self._aliases.setdefault(use_case, {})[name] = version

    def models(self, use_case: str) -> list[RegisteredModel]:
        """All versions, newest first."""
        aliases = self._aliases.get(use_case, {})
        return [
            model._replace(aliases=tuple(sorted(name for name, at in aliases.items() if at == model.version)))
            for model in reversed(self._versions.get(use_case, []))
        ]
