"""Tables whose rows are sums: what two ids have in common they learn in common.

While a model trains, the row of an id is a free part plus one vector per label (phone, pitch, chord, ...).
`plain` turns such tables into ordinary ones: the checkpoint knows nothing of labels.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from songgen_core.text.phonetics import PHONES

from .codes import (
    CHORDS,
    DRUMS,
    FIRST_HEARD,
    LOWEST_MIDI,
    NUM_PITCHES,
    PULSES,
    SYLLABLE_CYCLE,
    TIMBRES,
    Ints,
    bgm_factors,
    mixed_factors,
    vocal_factors,
)

_FREE, _LABEL = 0.01, 0.04  # standard deviations at the start

Network = TypeVar("Network", bound=nn.Module)


class Labels(NamedTuple):
    """What ids mean: table [ids, n] int64, -1 where an id lacks a label; counts: the values of each label."""

    table: Ints
    counts: tuple[int, ...]


def mixed_labels() -> Labels:
    """Of the mixed stream: phone, number of the syllable, pulse."""
    return Labels(mixed_factors(), (len(PHONES), SYLLABLE_CYCLE, len(PULSES)))


def heard_labels() -> Labels:
    """Of what the mixed encoder hears: phone, and whether there is a pulse. Ids of songs have neither."""
    table = mixed_factors()[:, [0, 2]]
    table[:FIRST_HEARD] = -1
    table[:, 1] = np.minimum(table[:, 1], 1)
    return Labels(table, (len(PHONES), 2))


def vocal_labels() -> Labels:
    """Of the vocal stream: phone, and pitch from the lowest one."""
    table = vocal_factors()
    table[:, 1] = np.where(table[:, 1] > 0, table[:, 1] - LOWEST_MIDI, -1)
    return Labels(table, (len(PHONES), NUM_PITCHES))


def bgm_labels() -> Labels:
    """Of the accompaniment: chord, whether it is struck, drum, timbre."""
    return Labels(bgm_factors(), (len(CHORDS), 2, len(DRUMS), len(TIMBRES)))


def label_tables(counts: Sequence[int], width: int) -> list[nn.Embedding]:
    """One table per label; row 0 means 'has none' and stays zero."""
    tables = [nn.Embedding(count + 1, width, padding_idx=0) for count in counts]
    for table in tables:
        nn.init.normal_(table.weight[1:], std=_LABEL)
    return tables


class _Sum(nn.Module):
    """free part [rows, width] -> table [rows, width]."""

    def __init__(self, labels: Ints, tables: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.labels: Tensor
        self.register_buffer("labels", torch.from_numpy(labels) + 1, persistent=False)
        self.tables = nn.ModuleList(tables)

    def forward(self, free: Tensor) -> Tensor:
        total = free
        for i, table in enumerate(self.tables):
            total = total + table(self.labels[:, i])
        return total


def share_labels(layer: nn.Module, labels: Ints, tables: Sequence[nn.Embedding]) -> None:
    """Make the first rows of `layer.weight` [rows, width] sums.

    labels [n, tables] integers, -1 where an id lacks the label; rows behind the n-th are free.
    """
    weight = layer.get_parameter("weight")
    padded = np.full((len(weight), labels.shape[1]), -1)
    padded[: len(labels)] = labels
    nn.init.normal_(weight, std=_FREE)
    parametrize.register_parametrization(layer, "weight", _Sum(padded, tables), unsafe=True)


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
