"""Results of a scenario: the file with versions and machine, and the table for people."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import confluent_kafka
import msgspec
import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from load_tests.bench import OURS, Figures, Scenario, passed
from load_tests.peers.environments import peer_versions
from tailrace.local.broker import KAFKA

FOLDER = Path(__file__).with_name("results")
PACKAGES = ("aiokafka", "confluent-kafka", "faust-streaming", "feast", "msgspec", "numpy", "redis", "tailrace")


class Machine(msgspec.Struct, frozen=True):
    """Where it ran. `load_1m` is the load average before the first run: above 1, others were at work too."""

    cores: int
    memory_gb: float
    cpu: str
    load_1m: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a scenario. `changed` says that the working tree differed from `commit`."""

    scenario: str
    about: str
    unit: str
    passed: bool
    candidates: dict[str, Figures]
    limits: dict[str, float]
    events: int
    repeat: int
    seed: int
    measured_at: str
    commit: str
    changed: bool
    machine: Machine
    versions: dict[str, str]


def machine() -> Machine:
    """This machine, without its name."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        cpu=_cpu(),
        load_1m=round(psutil.getloadavg()[0], 2),
    )


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    runtimes = [d for d in importlib.metadata.distributions() if d.name in ("onnxruntime", "onnxruntime-gpu")]
    found |= {runtime.name: runtime.version for runtime in runtimes}
    return (
        found
        | peer_versions()
        | {
            "kafka": KAFKA.rpartition(":")[2],
            "librdkafka": confluent_kafka.libversion()[0],
            "python": platform.python_version(),
        }
    )


def result_of(
    scenario: Scenario, found: dict[str, Figures], *, where: Machine, events: int, repeat: int, seed: int
) -> Result:
    """Puts figures together with what they depend on."""
    return Result(
        scenario=scenario.name,
        about=scenario.about.splitlines()[0],
        unit=scenario.unit,
        passed=passed(found),
        candidates=found,
        limits=scenario.limits,
        events=events,
        repeat=repeat,
        seed=seed,
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        commit=_git("rev-parse", "--short", "HEAD"),
        changed=bool(_git("status", "--porcelain", "--untracked-files=no")),
        machine=where,
        versions=versions(),
    )


def write(result: Result, folder: Path = FOLDER, *, peers: bool = False) -> Path:
    """Writes `<scenario>.json`, beside peers `<scenario>_peers.json`; git keeps those before it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{result.scenario}{'_peers' if peers else ''}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    return path


def table(result: Result) -> RenderableType:
    """Medians, their spread, and how many times better ours is; below, the notes, and why a candidate is absent."""
    better = "less" if result.unit in ("ms", "s") else "more"
    runs = f"{result.events:,} events, median of {result.repeat}; {better} is better, the ratio says how many times ours is"
    title = f"[bold]{result.scenario}[/] {result.about}\n{runs}"
    out = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("candidate", result.unit, "lowest", "highest", "ratio", "at least"):
        out.add_column(heading, justify="left" if heading == "candidate" else "right", no_wrap=True)
    for name, figures in result.candidates.items():
        out.add_row(
            f"[bold]{name}[/]" if name == OURS else name,
            _number(figures.median),
            _number(min(figures.runs, default=None)),
            _number(max(figures.runs, default=None)),
            "" if figures.ratio is None else f"{figures.ratio:,.2f} ×",
            _verdict(figures),
        )
    below = [
        _below(name, figures, result.limits if name == OURS else {}) for name, figures in result.candidates.items()
    ]
    return Group(title, out, *(line for line in below if line))


def _verdict(figures: Figures) -> str:
    if not figures.floor:
        return ""
    mark = {True: "[green]met[/]", False: "[red]not met[/]", None: "[yellow]not measured[/]"}[figures.met]
    return f"{figures.floor:g} × {mark}"


def _below(name: str, figures: Figures, limits: dict[str, float]) -> str:
    if figures.absent:
        return f"[yellow]{name}:[/] {escape(figures.absent)}"
    parts = []
    for note, value in figures.notes.items():
        limit = limits.get(note)
        over = f" [yellow](limit {limit:g})[/]" if limit is not None and value > limit else ""
        parts.append(f"{note} {_number(value)}{over}")
    return f"[dim]{name}:[/] {', '.join(parts)}" if parts else ""


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=FOLDER.parent)
    return done.stdout.strip() if done.returncode == 0 else ""
