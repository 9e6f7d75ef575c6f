"""Peers and references as candidates: each runs in a process, and most in an environment, of its own.

What is here goes into the `CANDIDATES` of a scenario: `CANDIDATES = {"tailrace": ours} | SCORING`.
"""

from load_tests.peers.candidates import SCORING, SCORING_LOOPS, STORE_READ, STORE_WRITE, WINDOWS, WINDOWS_LOOPS

__all__ = ["SCORING", "SCORING_LOOPS", "STORE_READ", "STORE_WRITE", "WINDOWS", "WINDOWS_LOOPS"]
