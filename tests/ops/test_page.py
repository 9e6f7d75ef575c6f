"""The page as it is shipped."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

CONSOLE = Path(str(files("tailrace.ops"))) / "console"


def test_vendored_files_are_those_whose_sums_are_written_down() -> None:
    sums = dict(reversed(line.split()) for line in (CONSOLE / "vendor" / "SHA256SUMS").read_text().splitlines())
    found = {name: hashlib.sha256((CONSOLE / "vendor" / name).read_bytes()).hexdigest() for name in sums}
    assert sums == found
    assert {"uPlot.iife.min.js", "uPlot.min.css"} == set(sums)
    assert "MIT" in (CONSOLE / "vendor" / "uPlot.LICENSE").read_text()


def test_scripts_stay_small() -> None:
    assert sum(file.stat().st_size for file in CONSOLE.rglob("*.js")) < 300_000


def test_page_asks_nobody_else_for_anything() -> None:
    for file in [*CONSOLE.glob("*.js"), *CONSOLE.glob("*.html"), *CONSOLE.glob("*.css")]:
        assert "://" not in file.read_text(), file.name
