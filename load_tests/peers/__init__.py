"""Peers as candidates: each runs in a process and an environment of its own.

What is here goes into the `PEERS` of a scenario: `PEERS = SCORING`.
"""

from load_tests.peers.candidates import SCORING, WINDOWS

__all__ = ["SCORING", "WINDOWS"]
