"""What a device can do at best, measured on the device itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Limits(NamedTuple):
    """Rates of a device in float32: operations of a matrix product, bytes read and written by a copy."""

    flops_per_s: float
    bytes_per_s: float


MEASURE_S = 1.0


def measured_limits(device: str) -> Limits:
    """Measures for two seconds; the best try counts, since a busy machine only takes away.

    Args:
        device: "cuda" or "cpu"; on the processor with as many threads as torch is set to.
    """
    # Large enough that neither launching nor caches count; on the processor small enough to end before its turn does.
    size, count = (8192, 2**28) if device == "cuda" else (512, 2**25)
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    product = torch.empty(size, size, device=device)
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    multiplying = _least_seconds(lambda: torch.mm(left, right, out=product))
    copying = _least_seconds(lambda: target.copy_(source))
    return Limits(2.0 * size**3 / multiplying, 2.0 * source.numel() * source.element_size() / copying)


def _least_seconds(run: Callable[[], object]) -> float:
    best, stop = float("inf"), time.perf_counter() + MEASURE_S
    while time.perf_counter() < stop:
        _wait()
        began = time.perf_counter()
        run()
        _wait()
        best = min(best, time.perf_counter() - began)
    return best


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
