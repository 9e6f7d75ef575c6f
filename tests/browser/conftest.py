"""A real Chromium, and the real loop under the console."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_loop import CALM_DAYS, USE_CASE, Loop, open_console
from playwright.sync_api import Browser, Error, Page, Playwright, sync_playwright

from tailrace.backends.settings import Settings
from tailrace.local.supervisor import Embedded

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The loop after eight calm days, with its first model in service."""
    directory = tmp_path_factory.mktemp("loop")
    embedded = Embedded(directory, settings=Settings(use_cases=Path("feature_repo")))
    embedded.start([USE_CASE])
    try:
        loop = Loop(embedded)
        loop.play(0, CALM_DAYS)
        yield loop
        loop.replay.close()
    finally:
        embedded.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: the system's, else Playwright's own, which is fetched when missing."""
    with sync_playwright() as playwright:
        try:
            launched = _launch(playwright)
        except (Error, subprocess.CalledProcessError) as error:
            message = f"no Chromium: install the package chromium-headless-shell or chromium ({error})"
            if os.environ.get("TAILRACE_REQUIRE_INTEGRATION") == "1":
                pytest.fail(message)
            pytest.skip(message)
        yield launched
        launched.close()


def _launch(playwright: Playwright) -> Browser:
    # Chromium's own sandbox wants privileges that containers do not give; it only ever sees our page.
    arguments = ["--no-sandbox"]
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None:
            return playwright.chromium.launch(executable_path=path, args=arguments)
    if not Path(playwright.chromium.executable_path).exists():
        command = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
    return playwright.chromium.launch(args=arguments)


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console said; empty is good."""
    return []


@pytest.fixture
def page(browser: Browser, loop: Loop, complaints: list[str]) -> Iterator[Page]:
    """The console, signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page = open_console(context.new_page(), loop, complaints)
    yield page
    context.close()
