"""Sliding windows: `WindowState` over events, `LabelState` and `evaluate` over labels."""

from __future__ import annotations

from tailrace.core.event_windows import IN_MEMORY, InMemory, Room, WindowState, stable_hash
from tailrace.core.label_windows import LabelState, evaluate

__all__ = ["IN_MEMORY", "InMemory", "LabelState", "Room", "WindowState", "evaluate", "stable_hash"]
