"""Three networks that stand for what is served: an MLP, a click model full of embeddings, events in sequence."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tailrace.trainer.torch_tabular import to_onnx

OPSET = 18
_FLOAT = 4
"""Bytes of a float32."""


class Work(NamedTuple):
    """What a batch must do at least, whoever does it.

    Attributes:
        flops_per_row: Floating-point operations; a multiplication with its addition counts 2.
        bytes_per_row: Bytes of memory read and written, each input once and each output once.
        bytes_per_batch: The same for weights, which are read once for all rows.
    """

    flops_per_row: float
    bytes_per_row: float
    bytes_per_batch: float

    def seconds(self, rows: int, flops_per_s: float, bytes_per_s: float) -> tuple[float, str]:
        """The least time for a batch on a device of these rates, and which of the two sets it."""
        arithmetic = rows * self.flops_per_row / flops_per_s
        memory = (rows * self.bytes_per_row + self.bytes_per_batch) / bytes_per_s
        return max((arithmetic, "flops"), (memory, "bandwidth"))


class Network(NamedTuple):
    """A network with its inputs and its work."""

    name: str
    module: nn.Module
    width: int
    rows: Callable[[np.random.Generator, int], NDArray[np.float32]]
    work: Work

    def to_onnx(self) -> bytes:
        """The network as an ONNX model."""
        return to_onnx(self.module, self.width, OPSET)

    def to_program(self) -> bytes:
        """The network as a program of `torch.export`."""
        shapes = ({0: torch.export.Dim("n")},)
        program = torch.export.export(self.module, (torch.zeros(4, self.width),), dynamic_shapes=shapes)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return buffer.getvalue()


def networks(seed: int = 5) -> list[Network]:
    """The three networks, alike for every call with the same seed."""
    torch.manual_seed(seed)
    return [_mlp(), _click_model(), _transformer()]


def _mlp() -> Network:
    sizes = (64, 512, 256, 1)
    module = nn.Sequential(*_layers(sizes), nn.Sigmoid(), nn.Flatten(0)).eval()
    work = Work(_flops(sizes), _FLOAT * (sizes[0] + 1), _bytes(module))
    return Network("mlp", module, sizes[0], lambda random, n: random.standard_normal((n, 64), np.float32), work)


class _ClickModel(nn.Module):
    """DLRM-like (Naumov et al., 2019): numbers through an MLP, categories embedded, dot products of all pairs."""

    NUMBERS, CATEGORIES, CODES, SIZE = 13, 26, 40_000, 16
    """The columns of Criteo's data; 66 MB of embeddings, more than caches hold."""
    PAIRS = (CATEGORIES + 1) * CATEGORIES // 2
    BOTTOM, TOP = (NUMBERS, 64, SIZE), (PAIRS + SIZE, 128, 64, 1)

    first: torch.Tensor
    pairs: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(*_layers(self.BOTTOM), nn.ReLU())
        self.embeddings = nn.Embedding(self.CATEGORIES * self.CODES, self.SIZE)
        self.top = nn.Sequential(*_layers(self.TOP))
        vectors = self.CATEGORIES + 1
        above = torch.triu_indices(vectors, vectors, offset=1)
        self.register_buffer("first", torch.arange(self.CATEGORIES) * self.CODES)
        self.register_buffer("pairs", above[0] * vectors + above[1])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        numbers = self.bottom(rows[:, : self.NUMBERS])
        # One table for all categories: one gather instead of 26.
        codes = rows[:, self.NUMBERS :].to(torch.int64) + self.first
        vectors = torch.cat([numbers.unsqueeze(1), self.embeddings(codes)], 1)
        products = torch.matmul(vectors, vectors.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        scores: torch.Tensor = torch.sigmoid(self.top(torch.cat([products, numbers], 1)).squeeze(1))
        return scores


def _click_model() -> Network:
    kind = _ClickModel
    width = kind.NUMBERS + kind.CATEGORIES

    def rows(random: np.random.Generator, n: int) -> NDArray[np.float32]:
        made = random.standard_normal((n, width), np.float32)
        made[:, kind.NUMBERS :] = random.integers(0, kind.CODES, (n, kind.CATEGORIES))
        return made

    module = kind().eval()
    flops = _flops(kind.BOTTOM) + _flops(kind.TOP) + 2 * kind.PAIRS * kind.SIZE
    read = _FLOAT * (width + 1 + kind.CATEGORIES * kind.SIZE)
    return Network("click", module, width, rows, Work(flops, read, _bytes(module.bottom) + _bytes(module.top)))


class _Transformer(nn.Module):
    """Two encoder layers over the last 32 events of a key, 8 columns each; the mean is classified."""

    EVENTS, COLUMNS, SIZE, HEADS, HIDDEN, LAYERS = 32, 8, 64, 4, 128, 2

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(self.COLUMNS, self.SIZE)
        self.positions = nn.Parameter(torch.randn(self.EVENTS, self.SIZE) * 0.1)
        self.layers = nn.ModuleList(_EncoderLayer(self.SIZE, self.HEADS, self.HIDDEN) for _ in range(self.LAYERS))
        self.classify = nn.Linear(self.SIZE, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        events = self.embed(rows.reshape(-1, self.EVENTS, self.COLUMNS)) + self.positions
        for layer in self.layers:
            events = layer(events)
        return torch.sigmoid(self.classify(events.mean(1)).squeeze(1))


class _EncoderLayer(nn.Module):
    """Attention and two linear layers, normalised before each (Xiong et al., 2020)."""

    def __init__(self, size: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (size // heads) ** -0.5
        self.before_attention, self.before_linear = nn.LayerNorm(size), nn.LayerNorm(size)
        self.project, self.join = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.linear = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        _, length, size = events.shape
        parts = self.project(self.before_attention(events)).reshape(-1, length, 3, self.heads, size // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(torch.matmul(queries, keys.transpose(2, 3)) * self.scale, -1)
        attended = torch.matmul(weights, values).transpose(1, 2).reshape(-1, length, size)
        events = events + self.join(attended)
        changed: torch.Tensor = events + self.linear(self.before_linear(events))
        return changed


def _transformer() -> Network:
    kind = _Transformer
    width = kind.EVENTS * kind.COLUMNS
    layer = 4 * kind.SIZE * kind.SIZE + 2 * kind.SIZE * kind.HIDDEN + 2 * kind.EVENTS * kind.SIZE
    flops = 2 * kind.EVENTS * (kind.COLUMNS * kind.SIZE + kind.LAYERS * layer) + 2 * kind.SIZE
    module = kind().eval()
    work = Work(flops, _FLOAT * (width + 1), _bytes(module))
    return Network("transformer", module, width, lambda random, n: random.standard_normal((n, width), np.float32), work)


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    made: list[nn.Module] = []
    for size, following in itertools.pairwise(sizes):
        made += [nn.Linear(size, following), nn.ReLU()]
    return made[:-1]


def _flops(sizes: Sequence[int]) -> float:
    return 2.0 * sum(size * following for size, following in itertools.pairwise(sizes))


def _bytes(module: nn.Module) -> float:
    return float(sum(each.numel() * each.element_size() for each in module.parameters()))
