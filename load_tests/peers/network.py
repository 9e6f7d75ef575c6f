"""The model of all candidates; an environment has ONNX Runtime and numpy where this is imported."""

from __future__ import annotations

import onnxruntime


def session_of(model: str | bytes) -> onnxruntime.InferenceSession:
    """Opens a model, a file or its bytes, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
