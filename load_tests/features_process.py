"""A features process that writes no rows to the online store: `python -m load_tests.features_process <use case>`."""

from __future__ import annotations

import signal
import sys

from tailrace.backends.settings import load_settings
from tailrace.features.service import run
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.load import load_use_case


class NoStore:
    """An online store that keeps nothing."""

    def write(self, *rows: object) -> None:
        """Drops rows."""

    def read(self, requests: object) -> list[object]:
        """Has nothing."""
        return []


def main() -> None:
    settings = load_settings()
    lifecycle = Lifecycle("features", sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: lifecycle.stopping.set())
    run(settings, load_use_case(settings.use_cases, sys.argv[1]), lifecycle, NoStore())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
