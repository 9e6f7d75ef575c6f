"""Runs models exported by torch; torch is imported only when such a bundle is loaded."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray

from tailrace.core.scoring import checked_probabilities
from tailrace.errors import ArtifactInvalid


class TorchExecutor:
    """A program made by `torch.export`, float32 (n, d) to n probabilities, on CUDA where there is one.

    Args:
        model: The serialised program (`torch.export.save`).
        width: Number of columns d of the plan.
        threads: CPU threads for one run.

    Raises:
        ArtifactInvalid: the bytes are no exported program.
    """

    def __init__(self, model: bytes, *, width: int, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._width = width
        try:
            self._module = torch.export.load(io.BytesIO(model)).module().to(self._device)
        except Exception as error:  # the loader raises exceptions of many kinds
            raise ArtifactInvalid(f"torch cannot load the model: {error}. Export it anew.") from error

    def warm(self, rows: int) -> None:
        """Runs dummy batches of 1 and `rows` rows."""
        for count in (1, rows):
            self.run(np.zeros((count, self._width), dtype=np.float32))

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores float32 (n, d), NaN = missing; returns float64 (n,) in [0, 1].

        Raises:
            ArtifactInvalid: the model fails, or gives no probabilities.
        """
        # Programs exported with an open number of rows take two or more unless their author asked for one.
        rows = np.ascontiguousarray(matrix if len(matrix) != 1 else np.repeat(matrix, 2, axis=0))
        try:
            with torch.inference_mode():
                scores = self._module(torch.from_numpy(rows).to(self._device)).cpu().numpy()
        except Exception as error:  # broken guards are AssertionErrors, kernels raise RuntimeErrors
            raise ArtifactInvalid(f"the model failed on {matrix.shape} rows: {error}") from error
        return checked_probabilities(scores, len(rows))[: len(matrix)]
