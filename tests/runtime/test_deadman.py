"""What ends a process whose calls do not return, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from tailrace.runtime.loop import Deadman
deadman = Deadman(limit_s=0.5)
{body}
sys.exit(0)
"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("with deadman: time.sleep(30)", 70),
        ("with deadman:\n  with deadman: pass\n  time.sleep(30)", 70),
        ("with deadman: pass\ntime.sleep(1)", 0),
        ("with deadman:\n  with deadman: pass\ntime.sleep(1)", 0),
        ("assert deadman.age_s() == 0\nwith deadman:\n  with deadman: pass\n  assert deadman.age_s() > 0", 0),
    ],
    ids=["a call hangs", "behind an inner call", "after a call", "after calls in calls", "age"],
)
def test_only_a_call_that_does_not_return_ends_the_process(body: str, code: int) -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], timeout=60, capture_output=True, text=True)
    assert code == ran.returncode, ran.stderr
