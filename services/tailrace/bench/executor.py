"""Executors against the bare engines on the same batches: `python -m tailrace.bench.executor`.

For each network, engine and batch size: rows/s, median and 99th percentile of a batch, the rate as a share of the bare
engine's, and the bare engine's and ours as a share of what the device can do at all. Engines take turns in short
rounds, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from tailrace.backends.ports import Executor
from tailrace.backends.runtime_onnx import CPU, OnnxExecutor, usable_providers
from tailrace.backends.runtime_torch import TorchExecutor
from tailrace.bench.limits import Limits, measured_limits
from tailrace.bench.networks import Network, networks

Scorer = Callable[[NDArray[np.float32]], object]

ENGINES = ("onnx", "torch")
SIZES = (1, 16, 64, 256, 1024, 4096)
ROUNDS = 5
ROUND_S = 0.1
BATCHES = 8
"""Different batches in turn: one alone would keep its embeddings in the cache."""
TOLERANCE = 1e-6


class Figures(msgspec.Struct, frozen=True):
    """One batch size.

    Attributes:
        rows_per_s: At the median.
        ratio: Our rate over the bare engine's, median of the rounds.
        share_of_limit: The least time that the device needs over our median time, in [0, 1] but for caches.
        limit: Which limit that is, "flops" or "bandwidth".
    """

    rows: int
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    raw_rows_per_s: float
    raw_p50_ms: float
    raw_p99_ms: float
    ratio: float
    share_of_limit: float
    limit: str


class Case(msgspec.Struct, frozen=True):
    """One network on one engine.

    Attributes:
        fixed_shapes: Whether batches ran in fixed shapes.
        load_s: Seconds to load and warm.
        largest_difference: Between the score of a row in a batch and alone.
    """

    network: str
    engine: str
    providers: list[str]
    fixed_shapes: bool
    load_s: float
    largest_difference: float
    figures: list[Figures]


class Report(msgspec.Struct, frozen=True):
    """All cases, and where they were measured."""

    device: str
    threads: int
    versions: dict[str, str]
    limits: dict[str, float]
    cases: list[Case]


def measure(names: Sequence[str], engines: Sequence[str], sizes: Sequence[int], threads: int) -> Report:
    """Measures the networks of these names; TF32 stays off everywhere, because scores must not depend on it."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    limits = measured_limits(device)
    chosen = [network for network in networks() if network.name in names]
    cases = [_case(network, engine, sizes, threads, limits) for network in chosen for engine in engines]
    return Report(
        device=torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        threads=threads,
        versions={"onnxruntime": ort.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
        limits=limits._asdict(),
        cases=cases,
    )


def _case(network: Network, engine: str, sizes: Sequence[int], threads: int, limits: Limits) -> Case:
    began = time.perf_counter()
    executor, providers, fixed = _executor(network, engine, threads)
    executor.warm(max(sizes))
    load_s = time.perf_counter() - began
    raw = _raw(network, engine, threads)
    return Case(
        network=network.name,
        engine=engine,
        providers=providers,
        fixed_shapes=fixed,
        load_s=load_s,
        largest_difference=_largest_difference(network, executor),
        figures=[_figures(network, executor.run, raw, rows, limits) for rows in sizes],
    )


def _executor(network: Network, engine: str, threads: int) -> tuple[Executor, list[str], bool]:
    if engine == "onnx":
        onnx = OnnxExecutor(network.to_onnx(), width=network.width, threads=threads)
        return onnx, onnx.providers, onnx.fixed
    program = TorchExecutor(network.to_program(), width=network.width, threads=threads)
    return program, ["cuda" if torch.cuda.is_available() else "cpu"], program.fixed


def _raw(network: Network, engine: str, threads: int) -> Scorer:
    """The engine as its first page of documentation uses it; for torch, with the batch on the device already."""
    if engine == "onnx":
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        providers: list[Any] = [CPU]
        if usable_providers() != (CPU,):
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        session = ort.InferenceSession(network.to_onnx(), options, providers=providers)
        return lambda rows: session.run(["probability"], {"rows": rows})
    return _raw_torch(network)


def _raw_torch(network: Network) -> Scorer:
    cuda = torch.cuda.is_available()
    module = network.module.to("cuda" if cuda else "cpu")
    placed: dict[int, torch.Tensor] = {}

    def run(rows: NDArray[np.float32]) -> object:
        if id(rows) not in placed:
            placed[id(rows)] = torch.from_numpy(rows).to("cuda" if cuda else "cpu")
        with torch.inference_mode():
            scores = module(placed[id(rows)])
        if cuda:
            torch.cuda.synchronize()
        return scores

    return run


def _largest_difference(network: Network, executor: Executor) -> float:
    rows = network.rows(np.random.default_rng(1), 300)
    alone = np.concatenate([executor.run(rows[at : at + 1]) for at in range(len(rows))])
    return float(np.abs(executor.run(rows) - alone).max())


def _figures(network: Network, ours: Scorer, raw: Scorer, rows: int, limits: Limits) -> Figures:
    random = np.random.default_rng(2)
    batches = [network.rows(random, rows) for _ in range(BATCHES)]
    for scorer in (ours, raw):
        _timed(scorer, batches, BATCHES)
    calls = max(1, min(1000, int(ROUND_S / np.median(_timed(ours, batches, 3)))))
    our_rounds, raw_rounds = [], []
    for _ in range(ROUNDS):
        our_rounds.append(_timed(ours, batches, calls))
        raw_rounds.append(_timed(raw, batches, calls))
    ratios = [np.median(raw_s) / np.median(our_s) for our_s, raw_s in zip(our_rounds, raw_rounds, strict=True)]
    our_s, raw_s = np.concatenate(our_rounds), np.concatenate(raw_rounds)
    least_s, limit = network.work.seconds(rows, *limits)
    return Figures(
        rows=rows,
        rows_per_s=rows / float(np.median(our_s)),
        p50_ms=1e3 * float(np.median(our_s)),
        p99_ms=1e3 * float(np.quantile(our_s, 0.99)),
        raw_rows_per_s=rows / float(np.median(raw_s)),
        raw_p50_ms=1e3 * float(np.median(raw_s)),
        raw_p99_ms=1e3 * float(np.quantile(raw_s, 0.99)),
        ratio=float(np.median(ratios)),
        share_of_limit=least_s / float(np.median(our_s)),
        limit=limit,
    )


def _timed(scorer: Scorer, batches: Sequence[NDArray[np.float32]], calls: int) -> NDArray[np.float64]:
    """Seconds of each call, float64 (calls,)."""
    took = np.empty(calls)
    for call in range(calls):
        rows = batches[call % len(batches)]
        began = time.perf_counter()
        scorer(rows)
        took[call] = time.perf_counter() - began
    return took


def _table(case: Case) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in (
        "rows",
        "rows/s",
        "p50 ms",
        "p99 ms",
        "raw rows/s",
        "raw p50 ms",
        "raw p99 ms",
        "ours/raw",
        "of limit",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in case.figures:
        table.add_row(
            f"{each.rows:,}",
            f"{each.rows_per_s:,.0f}",
            f"{each.p50_ms:.3f}",
            f"{each.p99_ms:.3f}",
            f"{each.raw_rows_per_s:,.0f}",
            f"{each.raw_p50_ms:.3f}",
            f"{each.raw_p99_ms:.3f}",
            f"{each.ratio:.2f}",
            f"{each.share_of_limit:.1%} {each.limit}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures; 1 where a row's score depends on its batch."""
    parser = argparse.ArgumentParser(prog="python -m tailrace.bench.executor", description=__doc__)
    known = [network.name for network in networks()]
    parser.add_argument("--network", action="append", choices=known, help="one network only; may be repeated")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="one engine only; may be repeated")
    parser.add_argument("--rows", action="append", type=int, help="one batch size only; may be repeated")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    report = measure(chosen.network or known, chosen.engine or ENGINES, chosen.rows or SIZES, chosen.threads)
    if chosen.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        console = Console(width=120)
        console.print(
            f"{report.device}, {report.threads} threads: {report.limits['flops_per_s'] / 1e9:,.0f} GFLOP/s, "
            f"{report.limits['bytes_per_s'] / 1e9:,.1f} GB/s measured"
        )
        for case in report.cases:
            console.print(
                f"{case.network} on {case.engine} ({case.providers[0]}{', fixed shapes' if case.fixed_shapes else ''}), "
                f"loaded in {case.load_s:.1f} s; a row in a batch differs from the row alone by {case.largest_difference:.0e}"
            )
            console.print(_table(case))
    return int(any(case.largest_difference > TOLERANCE for case in report.cases))


if __name__ == "__main__":
    sys.exit(main())
