"""The system under the console, and how the console is opened on it."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
from playwright.sync_api import Page

from tailrace.backends.recordings import to_recording
from tailrace.local.replay import Replay
from tailrace.local.supervisor import Embedded
from tailrace.ops.auth import local_token
from tailrace.testing.streams import DAY_MS, START_MS, CardFraudStream
from tailrace.usecase.load import load_use_case

USE_CASE = "card_fraud"
DAYS = 12
CALM_DAYS = 8


class Loop:
    """A running system, the address of its console, and a stream of which any part can be played.

    On day `CALM_DAYS` all amounts become ten times what they were.
    """

    def __init__(self, embedded: Embedded) -> None:
        self.embedded = embedded
        self.settings = embedded.settings
        self.url = embedded.addresses()[f"console of {USE_CASE}"]
        self.token = local_token(self.settings.state_dir)
        use_case = load_use_case(self.settings.use_cases, USE_CASE)
        events, outcomes = CardFraudStream(seed=5, days=DAYS, drift_day=DAYS).tables()
        late = pc.greater_equal(events["occurred_at_ms"], START_MS + CALM_DAYS * DAY_MS)
        amounts = pc.if_else(late, pc.multiply(events["amount_eur"], 10.0), events["amount_eur"])
        events = events.set_column(events.schema.get_field_index("amount_eur"), "amount_eur", amounts)
        recordings = to_recording(events, use_case.requests), to_recording(outcomes, use_case.label.topic)
        self.replay = Replay(self.settings, use_case, *recordings, keep_going=embedded.check)
        self.events: pa.Table = events

    def command(self, *words: str, code: int = 0) -> str:
        """Runs `tailrace` on this system; returns what it says, and checks its exit code."""
        command = [
            sys.executable,
            "-m",
            "tailrace",
            *words,
            "--use-case",
            USE_CASE,
            "--dir",
            str(self.settings.state_dir),
        ]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=90)
        assert code == ran.returncode, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def play(self, first_day: int, end_day: int) -> None:
        """Plays the days [first_day, end_day) as fast as the loop can take them."""
        self.replay.play(DAY_MS, from_ms=START_MS + first_day * DAY_MS, until_ms=START_MS + end_day * DAY_MS)


def open_console(page: Page, loop: Loop, complaints: list[str]) -> Page:
    """Opens the console as `tailrace console` would, and waits until it shows figures."""
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{loop.url}#token={loop.token}")
    page.wait_for_selector("#flow li")
    return page
