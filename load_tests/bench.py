"""What a scenario is given."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailrace.backends.settings import Settings


class Bench(msgspec.Struct):
    """One run of one candidate.

    `settings` name the broker and the Redis of the run, `directory` is scratch, `seed` seeds the data, `events` is how
    many there are, and `notes` takes further figures of the run.
    """

    settings: Settings
    directory: Path
    seed: int
    events: int
    notes: dict[str, float] = msgspec.field(default_factory=dict)
