"""What a scenario is, and how its candidates are run: interleaved, each several times, compared by their medians."""

from __future__ import annotations

import importlib
import pkgutil
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import msgspec

from tailrace.backends.settings import Settings, load_settings
from tailrace.errors import ConfigError
from tailrace.local.broker import Broker
from tailrace.local.online_store import OnlineStoreServer

OURS = "tailrace"
"""The candidate that all others are compared with."""


class Unavailable(Exception):
    """A candidate cannot run on this machine, its environment is missing for instance; the message says why."""


class Bench(msgspec.Struct):
    """What one run of a candidate is given.

    Attributes:
        settings: Broker and Redis of the run.
        directory: Scratch folder, shared by all runs of a scenario.
        seed: Seed of the events, the same for all candidates of a round.
        events: Number of events.
        notes: Further figures of this run, by name, which the candidate writes: `notes["p99_ms"] = 41.0`.
    """

    settings: Settings
    directory: Path
    seed: int
    events: int
    notes: dict[str, float] = msgspec.field(default_factory=dict)


Candidate = Callable[[Bench], float]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A module of `load_tests/scenarios`.

    Attributes:
        name: Name of the module.
        about: Its docstring.
        candidates: What runs, by name; each returns one figure, in `unit`.
        peers: Further candidates, other people's programs most of them, which run where the command asks for them.
        floors: Least ratio that must show, by candidate; 0 or absent: for the report only.
        unit: Unit of the figures. Of "ms" and "s" less is better, of all others more.
        events: Events of a run where the command does not say.
        short: Whether it belongs to the set that `run` without names runs, which shall end within ten minutes.
        rate: Events per second of an open loop, so that a length in minutes is a number of events; 0: as fast as it goes.
        limits: Highest value of a note of ours on an otherwise idle machine, by name. Shown, never enforced:
            an absolute time says more of the machine than of the code.
    """

    name: str
    about: str
    candidates: dict[str, Candidate]
    peers: dict[str, Candidate] = {}
    floors: dict[str, float]
    unit: str = "events/s"
    events: int = 100_000
    short: bool = True
    rate: float = 0.0
    limits: dict[str, float] = {}


class Figures(msgspec.Struct, kw_only=True):
    """What a candidate came to.

    `runs` are its figures in order; `notes` the median of each of its notes; `ratio` says how many times
    better ours is, None for ours or where one of the two has no figure; `absent` why it did not run.
    """

    runs: list[float] = []
    median: float | None = None
    ratio: float | None = None
    floor: float = 0.0
    met: bool | None = None
    notes: dict[str, float] = {}
    absent: str = ""


Tell = Callable[[str, float | None], None]
"""Told the name of a candidate before each run, then name and figure behind it."""


def scenario_names() -> list[str]:
    """Names of all scenarios."""
    folder = Path(__file__).with_name("scenarios")
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def load_scenario(name: str) -> Scenario:
    """Imports a scenario.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in scenario_names():
        raise ConfigError(f"no scenario {name!r}; there are: {', '.join(scenario_names())}")
    return scenario_of(name, importlib.import_module(f"load_tests.scenarios.{name}"))


def scenario_of(name: str, module: ModuleType) -> Scenario:
    """Reads a scenario out of its module.

    Raises:
        ConfigError: a floor names a candidate that does not exist.
    """
    scenario = Scenario(
        name=name,
        about=(module.__doc__ or "").strip(),
        candidates=module.CANDIDATES,
        peers=getattr(module, "PEERS", {}),
        floors=module.FLOORS,
        unit=getattr(module, "UNIT", "events/s"),
        events=getattr(module, "EVENTS", 100_000),
        short=getattr(module, "SHORT", True),
        rate=getattr(module, "RATE", 0.0),
        limits=getattr(module, "LIMITS", {}),
    )
    unknown = sorted(set(scenario.floors) - set(scenario.candidates) - set(scenario.peers))
    if unknown:
        raise ConfigError(f"scenario {name}: FLOORS names {', '.join(unknown)}, which CANDIDATES and PEERS do not have")
    return scenario


@contextmanager
def servers(directory: Path) -> Iterator[Settings]:
    """An embedded Kafka and Redis for the length of the block."""
    broker, store = Broker(directory / "kafka"), OnlineStoreServer(directory / "redis")
    try:
        store.start()
        broker.start()
        yield broker.connect(load_settings()).model_copy(
            update={
                "redis_url": store.url,
                "state_dir": directory / "state",
                "use_cases": Path("feature_repo").resolve(),
            }
        )
    finally:
        store.stop()
        broker.stop()


def run_interleaved(
    scenario: Scenario, bench: Bench, *, repeat: int, tell: Tell = lambda name, figure: None
) -> dict[str, Figures]:
    """Runs every candidate `repeat` times, in rounds, so that a slow spell of the machine meets all alike.

    Each round begins with another candidate, and has a seed of its own. A candidate that fails is left
    out from then on, and its figures say why.

    Args:
        scenario: What to run.
        bench: Settings, folder, first seed and number of events.
        repeat: Number of rounds, at least 1.
        tell: Called around each run.

    Returns:
        Figures by candidate, compared with ours.
    """
    found = {name: Figures(floor=scenario.floors.get(name, 0.0)) for name in scenario.candidates}
    notes: dict[str, list[dict[str, float]]] = {name: [] for name in found}
    names = list(found)
    for number in range(repeat):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if found[name].absent:
                continue
            tell(name, None)
            run = msgspec.structs.replace(bench, seed=bench.seed + number, notes={})
            try:
                found[name].runs.append(scenario.candidates[name](run))
            except Unavailable as reason:
                found[name].absent = str(reason)
            except Exception as error:  # noqa: BLE001  # of other people's programs anything may come
                # Results are published, and folders of this machine are nobody's business.
                told = re.sub(r"/\S+/", "…/", str(error))
                found[name].absent = f"failed: {type(error).__name__}: {told}"
            else:
                notes[name].append(run.notes)
                tell(name, found[name].runs[-1])
    for name, figures in found.items():
        figures.notes = _medians(notes[name])
    compare(found, less_is_better=scenario.unit in ("ms", "s"))
    return found


def compare(found: Mapping[str, Figures], *, less_is_better: bool) -> None:
    """Fills in medians, ratios and whether floors are met.

    A floor is not met where the ratio is below it, and where a candidate that has one broke down. A
    candidate that cannot run on this machine fails nobody.
    """
    for figures in found.values():
        figures.median = statistics.median(figures.runs) if figures.runs else None
    ours = found[OURS].median if OURS in found else None
    for name, figures in found.items():
        if name != OURS and ours and figures.median:
            figures.ratio = figures.median / ours if less_is_better else ours / figures.median
        if figures.floor > 0:
            figures.met = figures.ratio >= figures.floor if figures.ratio is not None else _excused(figures)


def passed(found: Mapping[str, Figures]) -> bool:
    """Whether every floor is met, and ours did not break down."""
    ours = found.get(OURS)
    return all(f.met is not False for f in found.values()) and (ours is None or not ours.absent)


def _excused(figures: Figures) -> bool | None:
    """No verdict on a candidate that is not installed here; a failure otherwise."""
    return None if figures.absent and not figures.absent.startswith("failed") else False


def _medians(notes: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for run in notes for name in run)
    return {name: statistics.median(run[name] for run in notes if name in run) for name in names}
