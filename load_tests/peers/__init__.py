"""Peers and references as candidates: each runs in a process, and most in an environment, of its own.

`SCORING`, `WINDOWS`, `STORE_READ` and `STORE_WRITE` go into the `CANDIDATES` of a scenario: `CANDIDATES = {"tailrace": …} | SCORING`.
"""

from load_tests.peers.candidates import SCORING, STORE_READ, STORE_WRITE, WINDOWS

__all__ = ["SCORING", "STORE_READ", "STORE_WRITE", "WINDOWS"]
