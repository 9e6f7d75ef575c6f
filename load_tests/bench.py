"""What a scenario is given."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailrace.backends.settings import Settings


class Bench(msgspec.Struct):
    """Servers, scratch space and size of one run."""

    settings: Settings
    directory: Path
    seed: int
    events: int
    notes: dict[str, float] = {}
