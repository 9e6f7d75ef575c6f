"""The network as a runtime of MLServer's own kind."""

from __future__ import annotations

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Network(MLModel):
    """Scores what adaptive batching has put together."""

    async def load(self) -> bool:
        """Opens the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = self.settings.parameters.uri
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Float32 (n, 30) in, (n, 1) out."""
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        scores = self._session.run(None, {"rows": rows})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
