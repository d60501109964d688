"""Tables whose rows are sums of what their ids mean."""

import numpy as np
import pytest
import torch
from torch import nn

from songgen_core.text.phonetics import PHONES
from training import codes
from training.factors import (
    Labels,
    bgm_labels,
    heard_labels,
    label_tables,
    mixed_labels,
    plain,
    share_labels,
    vocal_labels,
)

LABELS = np.array([[0, 1], [0, -1], [2, 1], [-1, -1]])


class Toy(nn.Module):
    """Two tables that share the vectors of their labels, and something ordinary."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList([nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)])
        self.norm = nn.LayerNorm(4)
        tables = label_tables([3, 2], 4)
        for part in self.parts:
            share_labels(part, LABELS, tables)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.parts[1](self.norm(self.parts[0](ids)))


def test_rows_are_sums_of_their_labels() -> None:
    toy = Toy()
    layer = toy.parts[0]
    shared = layer.parametrizations.weight
    free, tables = shared.original, shared[0].tables
    expected = free.clone()
    expected[0] += tables[0].weight[1] + tables[1].weight[2]
    expected[1] += tables[0].weight[1]
    expected[2] += tables[0].weight[3] + tables[1].weight[2]
    assert torch.allclose(layer.weight, expected, atol=1e-6)
    assert toy.parts[1].parametrizations.weight[0].tables[0] is tables[0]


def test_what_ids_share_they_learn_together_and_none_stays_zero() -> None:
    toy = Toy()
    optimiser = torch.optim.SGD(toy.parameters(), lr=1.0)
    before = toy.parts[0].weight.detach().clone()
    toy.parts[0](torch.tensor([0])).sum().backward()
    optimiser.step()
    moved = (toy.parts[0].weight - before).abs().sum(1) > 0
    assert moved.tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]  # row 1 by its phone, row 2 by its other label
    assert all((table.weight[0] == 0).all() for table in toy.parts[0].parametrizations.weight[0].tables)


def test_plain_is_the_same_network_with_ordinary_tables() -> None:
    toy = Toy()
    ids = torch.arange(6)
    expected = toy(ids)
    ordinary = plain(toy)
    assert torch.equal(ordinary(ids), expected)
    assert list(ordinary.state_dict()) == ["parts.0.weight", "parts.1.weight", "norm.weight", "norm.bias"]
    assert type(ordinary.parts[0]) is nn.Embedding and type(ordinary.parts[1]) is nn.Linear
    assert not any(p.requires_grad for p in ordinary.parameters()) and not ordinary.training
    with torch.no_grad():
        ordinary.parts[0].weight.zero_()
        ordinary.norm.bias += 1
    assert torch.equal(toy(ids), expected) and toy.training  # the original learns on
    assert "parametrizations" in "".join(toy.state_dict())


@pytest.mark.parametrize("labels", [mixed_labels(), heard_labels(), vocal_labels(), bgm_labels()])
def test_labels_fit_their_tables(labels: Labels) -> None:
    assert labels.table.shape == (codes.CODEBOOK_SIZE, len(labels.counts))
    assert labels.table.min() == -1 and (labels.table.max(0) == np.array(labels.counts) - 1).all()


def test_labels_mean_what_codes_say() -> None:
    aa, b = PHONES.index("AA"), PHONES.index("B")
    assert mixed_labels().table[codes.mixed_code(aa, 5, codes.BAR)].tolist() == [aa, 5, codes.BAR]
    heard = heard_labels().table
    assert (heard[: codes.FIRST_HEARD] == -1).all()
    for pulse, is_pulse in ((0, 0), (codes.OFF_BEAT, 1), (codes.BAR, 1)):
        assert heard[codes.heard_code(b, pulse)].tolist() == [b, is_pulse]
    vocal = vocal_labels().table
    assert vocal[codes.vocal_code(aa, codes.LOWEST_MIDI + 3)].tolist() == [aa, 3]
    assert vocal[codes.vocal_code(b, 0)].tolist() == [b, -1]
    assert bgm_labels().table[codes.bgm_code(7, 1, 4, 3)].tolist() == [7, 1, 4, 3]
