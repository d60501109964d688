"""Tables whose rows are sums: what two ids have in common they learn in common.

While a model trains, the row of an id is a free part plus one vector per label (phone, pitch, chord, ...).
`plain` turns such tables into ordinary ones: the checkpoint knows nothing of labels.
"""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

_FREE, _LABEL = 0.01, 0.04  # standard deviations at the start

Network = TypeVar("Network", bound=nn.Module)


def label_tables(counts: Sequence[int], width: int) -> list[nn.Embedding]:
    """One table per label; row 0 means 'has none' and stays zero."""
    tables = [nn.Embedding(count + 1, width, padding_idx=0) for count in counts]
    for table in tables:
        nn.init.normal_(table.weight[1:], std=_LABEL)
    return tables


class _Sum(nn.Module):
    """free part [rows, width] -> table [rows, width]."""

    def __init__(self, labels: NDArray, tables: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.labels: Tensor
        self.register_buffer("labels", torch.from_numpy(labels) + 1, persistent=False)
        self.tables = nn.ModuleList(tables)

    def forward(self, free: Tensor) -> Tensor:
        return free + sum(table(self.labels[:, i]) for i, table in enumerate(self.tables))


def share_labels(layer: nn.Module, labels: NDArray, tables: Sequence[nn.Embedding]) -> None:
    """Make the first rows of `layer.weight` [rows, width] sums.

    labels [n, tables] integers, -1 where an id lacks the label; rows behind the n-th are free.
    """
    rows = layer.weight.shape[0]
    padded = torch.full((rows, labels.shape[1]), -1)
    padded[: len(labels)] = torch.from_numpy(labels)
    nn.init.normal_(layer.weight, std=_FREE)
    parametrize.register_parametrization(layer, "weight", _Sum(padded.numpy(), tables), unsafe=True)


def plain(network: Network) -> Network:
    """A copy of `network` with ordinary tables, in evaluation mode and without gradients."""
    copied = copy.deepcopy(network)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if parametrize.is_parametrized(child):
                setattr(parent, name, _ordinary(child))
    return copied.eval().requires_grad_(False)


def _ordinary(layer: nn.Module) -> nn.Module:
    # Not `remove_parametrizations`: it changes the class, which the copied layer shares with its original.
    if isinstance(layer, nn.Embedding):
        return nn.Embedding.from_pretrained(layer.weight.detach().clone())
    assert isinstance(layer, nn.Linear) and layer.bias is None
    linear = nn.Linear(layer.in_features, layer.out_features, bias=False)
    linear.weight = nn.Parameter(layer.weight.detach().clone())
    return linear
