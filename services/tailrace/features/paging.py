"""Window state past memory: rings in a file of their own, which the system pages in and out.

Nothing in it outlives the process: the changelog is the truth, so the file has no name and is gone with it.
"""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from tailrace.core.windows import IN_MEMORY
from tailrace.errors import Fatal

SHARE = 0.25
"""Of the machine's memory, for rings that are not in files. A file costs disk writes as long as its pages change, which
memory that suffices need not; what stays is for the keys, the clients and the page cache, which then holds the file."""
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class PagedRoom:
    """`event_windows.Room`: an arena in memory up to a size, in a file beyond it. One per state.

    Args:
        directory: Where the file lies; made if it is missing.
        resident_bytes: Size up to which the arena stays in memory.
    """

    def __init__(self, directory: Path, resident_bytes: int) -> None:
        self._directory = directory
        self._resident_bytes = resident_bytes
        self._file: _File | None = None

    def soon(self, first: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """As `Room`: what lies on disk is read side by side, and the kernels wait for little of it."""
        if self._file is not None:
            self._file.soon(first, rows)

    def grown(self, words: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
        """As `Room`.

        Raises:
            Fatal: there is no disk left.
        """
        if self._file is not None:
            return self._file.words(rows, words.shape[1])
        if rows * words.strides[0] <= self._resident_bytes:
            return IN_MEMORY.grown(words, rows)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file = _File(self._directory)
        grown = self._file.words(rows, words.shape[1])
        grown[: len(words)] = words
        return grown


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
        self._row_bytes = 0
        self._read = -1

    def __del__(self) -> None:
        os.close(self._descriptor)

    def soon(self, first: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Asks for pages, as long as any of them come from disk: a page that is there costs a call for nothing."""
        read = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
        if read == self._read:
            return
        self._read = read
        begin = first * self._row_bytes // mmap.PAGESIZE
        end = (first + rows) * self._row_bytes // mmap.PAGESIZE + 1
        order = np.argsort(begin)
        until = 0
        for page, behind in zip(begin[order].tolist(), end[order].tolist(), strict=True):
            page = max(page, until)
            if page < behind:
                size = (behind - page) * mmap.PAGESIZE
                os.posix_fadvise(self._descriptor, page * mmap.PAGESIZE, size, os.POSIX_FADV_WILLNEED)
                until = behind

    def words(self, rows: int, width: int) -> NDArray[np.int64]:
        self._row_bytes = 8 * width
        try:
            # Without blocks of its own, a page that finds the disk full would end the process by a signal.
            os.posix_fallocate(self._descriptor, 0, 8 * rows * width)
        except OSError as error:
            raise Fatal(f"window state needs more disk than {self._directory} has: {error.strerror}") from error
        return np.frombuffer(self._map, np.int64, rows * width).reshape(rows, width)
