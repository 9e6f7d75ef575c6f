"""Peers and references as candidates: each runs in a process, and most in an environment, of its own.

`SCORING` and `WINDOWS` go into the `CANDIDATES` of a scenario: `CANDIDATES = {"tailrace": …} | SCORING`.
"""

from load_tests.peers.candidates import SCORING, WINDOWS

__all__ = ["SCORING", "WINDOWS"]
