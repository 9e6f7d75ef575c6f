"""What one run of a candidate is given."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailrace.backends.settings import Settings


class Bench(msgspec.Struct):
    """What one run of a candidate is given.

    Attributes:
        settings: Broker and Redis of the run.
        directory: Scratch folder, shared by all runs of a scenario.
        seed: Seed of the events, the same for all candidates of a round.
        events: Number of events.
        notes: Further figures of this run, by name, which the candidate writes.
    """

    settings: Settings
    directory: Path
    seed: int
    events: int
    notes: dict[str, float] = msgspec.field(default_factory=dict)
