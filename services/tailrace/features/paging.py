"""Window state past memory: rings in files of their own, which the system pages in and out.

Nothing in them outlives the process: the changelog is the truth, so the files have no name and are gone with it.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from tailrace.core.event_windows import Column, in_memory
from tailrace.errors import Fatal

SHARE = 0.25
"""Of the machine's memory, for rings that are not in files. Files cost disk writes as long as their pages change, which
memory that suffices need not; what stays is for the keys, the clients and the page cache, which then holds the files."""
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class PagedRoom:
    """`event_windows.Room`: columns in memory up to a size, in files beyond it. One per state.

    Args:
        directory: Where the files lie; made if it is missing.
        resident_bytes: Size of all columns up to which they stay in memory.
    """

    def __init__(self, directory: Path, resident_bytes: int) -> None:
        self._directory = directory
        self._resident_bytes = resident_bytes
        self._files: list[_File] = []

    def __call__(self, columns: Sequence[Column], rows: int) -> Sequence[Column]:
        """As `Room`.

        Raises:
            Fatal: there is no disk left.
        """
        if not self._files:
            if sum(_width(column) for column in columns) * rows <= self._resident_bytes:
                return in_memory(columns, rows)
            self._directory.mkdir(parents=True, exist_ok=True)
            self._files = [_File(self._directory) for _ in columns]
            grown = [file.column(column, rows) for file, column in zip(self._files, columns, strict=True)]
            for column, old in zip(grown, columns, strict=True):
                column[: len(old)] = old
            return grown
        return [file.column(column, rows) for file, column in zip(self._files, columns, strict=True)]


def resident_bytes() -> int:
    """Memory that window state of one process may take before it goes to files: a share of what the process can have."""
    limits = [psutil.virtual_memory().total]
    for path in map(Path, CONTAINER_LIMITS):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return int(SHARE * min(limits))


class _File:
    """A file without a name, mapped once at the size of the disk, so that it grows without being mapped anew."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with tempfile.TemporaryFile(dir=directory) as file:
            self._descriptor = os.dup(file.fileno())
        reserved = shutil.disk_usage(directory).total
        os.ftruncate(self._descriptor, reserved)
        self._map = mmap.mmap(self._descriptor, reserved)
        # A key's ring is a page or two, and its neighbours are other keys: reading ahead would fetch 128 kB for it.
        self._map.madvise(mmap.MADV_RANDOM)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def column(self, like: Column, rows: int) -> Column:
        try:
            # Without blocks of its own, a page that finds the disk full would end the process by a signal.
            os.posix_fallocate(self._descriptor, 0, max(rows * _width(like), 1))
        except OSError as error:
            raise Fatal(f"window state needs more disk than {self._directory} has: {error.strerror}") from error
        cells = np.frombuffer(self._map, like.dtype, rows * int(np.prod(like.shape[1:], dtype=np.int64)))
        return cells.reshape((rows, *like.shape[1:]))


def _width(column: Column) -> int:
    """Bytes of a row."""
    return int(column.itemsize * np.prod(column.shape[1:], dtype=np.int64))
