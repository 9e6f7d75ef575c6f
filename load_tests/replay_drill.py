"""Replays a recorded use case through an embedded system, killing workers and the broker on the way.

    python load_tests/replay_drill.py --use-case fraud_handbook --data DIR --dir STATE [--kills 2] [--until DAY]
    python load_tests/replay_drill.py --use-case elec2 --data DIR --dir STATE --kills 0

Afterwards runs `tailrace audit` and the use case's own check, `<use case>_check.py` beside this file.
Prints what it took; exits 1 if anything is amiss.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailrace.backends.settings import load_settings
from tailrace.local.supervisor import Embedded

WORKERS = ("features", "inference", "feedback", "trainer", "rollout")


def main(
    use_case: Annotated[str, typer.Option(help="Use case to replay.")],
    data: Annotated[Path, typer.Option(help="Folder with events.parquet and outcomes.parquet.")],
    directory: Annotated[Path, typer.Option("--dir", help="Folder of all state.")],
    kills: Annotated[int, typer.Option(help="How often each worker is killed.")] = 2,
    over: Annotated[float, typer.Option(help="Wall time over which kills are spread, seconds.")] = 600.0,
    until: Annotated[str, typer.Option(help="Day to stop before.")] = "9999-01-01",
    seed: Annotated[int, typer.Option(help="Seed of the schedule.")] = 1,
) -> None:
    """Runs the drill."""
    console = Console(stderr=True)
    embedded = Embedded(directory, settings=load_settings())
    embedded.start([use_case])
    environment = os.environ | {
        "TAILRACE_KAFKA_BOOTSTRAP": embedded.settings.kafka_bootstrap,
        "TAILRACE_REDIS_URL": embedded.settings.redis_url,
        "TAILRACE_STATE_DIR": str(directory),
        "TAILRACE_USE_CASES": str(embedded.settings.use_cases),
    }
    tool = [sys.executable, "-m", "tailrace"]
    recordings = [str(data / "events.parquet"), str(data / "outcomes.parquet")]
    began = time.monotonic()
    try:
        replay = subprocess.Popen(
            [*tool, "replay", *recordings, "--use-case", use_case, "--until", until], env=environment
        )
        for at_s, what in schedule(kills, over, random.Random(seed)):
            while replay.poll() is None and time.monotonic() - began < at_s:
                embedded.check()
                time.sleep(0.2)
            if replay.poll() is not None:
                break
            console.print(f"{at_s:6.0f} s  kill {what}")
            if what == "broker":
                embedded.restart_broker()
            else:
                embedded.kill(what)
        while replay.poll() is None:
            embedded.check()
            time.sleep(0.5)
        took_s = time.monotonic() - began
        audit = subprocess.run([*tool, "audit", "--use-case", use_case, "--json"], env=environment, check=False)
        check = subprocess.run(
            [
                sys.executable,
                str(Path(__file__).with_name(f"{use_case}_check.py")),
                "--data",
                str(data),
                "--until",
                until,
            ],
            env=environment,
            check=False,
        )
        codes = {"replay": replay.returncode, "audit": audit.returncode, "check": check.returncode}
        print(json.dumps({"took_s": round(took_s), "exit_codes": codes}))  # noqa: T201  # the result
    finally:
        embedded.stop()
    sys.exit(1 if any(codes.values()) else 0)


def schedule(kills: int, over_s: float, chance: random.Random) -> list[tuple[float, str]]:
    """When to kill what: every worker `kills` times, the broker once, in random order."""
    victims = [worker for worker in WORKERS for _ in range(kills)] + (["broker"] if kills else [])
    chance.shuffle(victims)
    step_s = over_s / (len(victims) + 1)
    return [((at + 1) * step_s, victim) for at, victim in enumerate(victims)]


if __name__ == "__main__":
    typer.run(main)
