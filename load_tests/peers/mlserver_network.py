"""The network as a runtime of MLServer's own kind."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from network import session_of


class Network(MLModel):
    """Scores what adaptive batching has put together."""

    async def load(self) -> bool:
        """Opens the model."""
        self._session = session_of(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Float32 (n, 30) in, (n, 1) out."""
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        scores = self._session.run(None, {"rows": rows})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
