"""Sliding windows: `WindowState` over events, `LabelState` and `evaluate` over labels."""

from __future__ import annotations

from tailrace.core.event_windows import Room, WindowState, in_memory, stable_hash
from tailrace.core.label_windows import LabelState, evaluate

__all__ = ["LabelState", "Room", "WindowState", "evaluate", "in_memory", "stable_hash"]
