"""A network for tables: standardised numbers with indicators of missing values, embeddings for categories."""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from tailrace.core.plan import Plan
from tailrace.trainer.models import OPSET

EPOCHS = 20
PATIENCE = 3
BATCH = 1_024
WIDTH = 96
MAX_POSITIVE_WEIGHT = 10.0
"""Rare positives weigh at most this much more than negatives; the calibration afterwards undoes the shift."""


class TabularNetwork(nn.Module):
    """Rows float32 (n, d) with NaN for missing values, to log-odds (n,); all preprocessing is inside.

    Args:
        rows: Training rows, from which means, spreads and the columns with missing values are taken.
        categories: Column position to number of codes, for columns that hold category codes.
    """

    numbers: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, rows: torch.Tensor, categories: dict[int, int]) -> None:
        super().__init__()
        numbers = [at for at in range(rows.shape[1]) if at not in categories]
        self.categories = sorted(categories)
        squeezed = _squeeze(rows[:, numbers])
        present = ~torch.isnan(squeezed)
        count = present.sum(0).clamp(min=1)
        filled = torch.nan_to_num(squeezed)
        mean = filled.sum(0) / count
        spread = (((filled - mean) * present) ** 2).sum(0).div(count).sqrt()
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64))
        self.register_buffer("mean", mean)
        self.register_buffer("spread", torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        self.embeddings = nn.ModuleList(
            nn.Embedding(categories[at] + 1, _embedded(categories[at])) for at in self.categories
        )
        self.unknown = [float(categories[at]) for at in self.categories]
        width = 2 * len(numbers) + sum(_embedded(categories[at]) for at in self.categories)
        self.layers = nn.Sequential(
            nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH // 2), nn.ReLU(), nn.Linear(WIDTH // 2, 1)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-odds, float32 (n,)."""
        numbers = rows.index_select(1, self.numbers)
        missing = torch.isnan(numbers)
        squeezed = _squeeze(torch.where(missing, torch.zeros_like(numbers), numbers))
        scaled = ((squeezed - self.mean) / self.spread).clamp(-8.0, 8.0)
        parts = [torch.where(missing, torch.zeros_like(scaled), scaled), missing.to(rows.dtype)]
        for at, last, embedding in zip(self.categories, self.unknown, self.embeddings, strict=True):
            codes = rows[:, at]
            # The last row of the table stands for missing and for codes never seen.
            known = torch.where(torch.isnan(codes), torch.full_like(codes, last), codes).clamp(0.0, last)
            parts.append(embedding(known.to(torch.int64)))
        found: torch.Tensor = self.layers(torch.cat(parts, 1)).squeeze(1)
        return found


class Probability(nn.Module):
    """A network's log-odds as probabilities."""

    def __init__(self, network: TabularNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Probabilities, float64 (n,): of small ones, float32 leaves an error that depends on the batch."""
        return torch.sigmoid(self.network(rows).double())


class Tabular:
    """A fitted network."""

    def __init__(self, network: TabularNetwork, width: int) -> None:
        self._module = Probability(network).eval()
        self._width = width

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities, float64 (n,)."""
        with torch.inference_mode():
            return np.asarray(self._module(torch.from_numpy(rows)).numpy())

    def to_onnx(self) -> onnx.ModelProto:
        """The network as a graph."""
        return onnx.load_from_string(to_onnx(self._module, self._width, OPSET))


def to_onnx(module: nn.Module, width: int, opset: int) -> bytes:
    """A network as an ONNX model: float32 (n, `width`) "rows" in, "probability" out, for any n."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is on its way out, but needs no further package and its graphs are exact.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(2, width),),
            buffer,  # type: ignore[arg-type]  # the tracing exporter takes any binary file
            input_names=["rows"],
            output_names=["probability"],
            dynamic_axes={"rows": {0: "n"}, "probability": {0: "n"}},
            opset_version=opset,
            dynamo=False,
        )
    return buffer.getvalue()


def fit(
    rows: NDArray[np.float32],
    labels: NDArray[np.bool_] | NDArray[np.float64],
    validation_rows: NDArray[np.float32],
    validation_labels: NDArray[np.bool_] | NDArray[np.float64],
    *,
    plan: Plan,
    seed: int,
) -> Tabular:
    """Fits the network; the validation rows decide when to stop. See `TrainedModel` for the arguments."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    x, y = torch.from_numpy(rows), torch.from_numpy(labels.astype(np.float32))
    held_x, held_y = torch.from_numpy(validation_rows), torch.from_numpy(validation_labels.astype(np.float32))
    network = TabularNetwork(x, _categories(plan))
    positives = max(float(y.sum()), 1.0)
    weight = torch.tensor(min((len(y) / positives) ** 0.5, MAX_POSITIVE_WEIGHT))
    loss_of = nn.BCEWithLogitsLoss(pos_weight=weight)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    shuffle = torch.Generator().manual_seed(seed)
    best_loss, best, since_best = float("inf"), copy.deepcopy(network.state_dict()), 0
    for _ in range(EPOCHS):
        network.train()
        for batch in torch.split(torch.randperm(len(y), generator=shuffle), BATCH):
            optimiser.zero_grad()
            loss_of(network(x[batch]), y[batch]).backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            held_loss = float(loss_of(network(held_x), held_y))
        if held_loss < best_loss:
            best_loss, best, since_best = held_loss, copy.deepcopy(network.state_dict()), 0
        elif (since_best := since_best + 1) >= PATIENCE:
            break
    network.load_state_dict(best)
    return Tabular(network, rows.shape[1])


def _categories(plan: Plan) -> dict[int, int]:
    """Position of each category column and how many codes it has."""
    return {
        at: len(column.categories) or column.buckets
        for at, column in enumerate(plan.request)
        if column.kind == "category"
    }


def _embedded(codes: int) -> int:
    """Width of the embedding of a category."""
    return min(16, 2 + codes // 4)


def _squeeze(numbers: torch.Tensor) -> torch.Tensor:
    """Signed logarithm: amounts and counts have long tails, which would drown everything else.

    Taken in float64, since that of float32 may depend on where in a batch a row stands.
    """
    return torch.sign(numbers) * torch.log1p(torch.abs(numbers).double()).to(numbers.dtype)
