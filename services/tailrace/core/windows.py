"""Sliding windows: `WindowState` over events, `LabelState` and `evaluate` over labels."""

from __future__ import annotations

from tailrace.core.label_windows import LabelState, evaluate

__all__ = ["LabelState", "evaluate"]
