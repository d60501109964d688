"""The training loop: seeded by step, resumable, watchful."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.loop import Schedule, train

SCHEDULE = Schedule(steps=12, learning_rate=0.05, warmup=3, measure_every=4, save_every=5, seed=7)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def loss_of(network: Line, stop_at: int | None = None, nan_at: int | None = None):
    """Learn the sum; the step is known by its generator."""
    steps = {np.random.default_rng([7, n]).random(): n for n in range(20)}

    def loss(rng: np.random.Generator):
        step = steps[rng.random()]
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.standard_normal((16, 3), np.float32))
        error = (network.layer(x)[:, 0] - x.sum(1)).square().mean()
        return error * (float("nan") if step == nan_at else 1), {"twice": 2 * error.item()}

    return loss


def run(folder: Path, network: Line, **trouble: int) -> dict[str, float]:
    weight = network.layer.weight
    measure = lambda: {"error": (weight - 1).abs().max().item(), "learns": float(torch.is_grad_enabled())}  # noqa: E731
    return train(
        "line", network, network.parameters(), loss_of(network, **trouble), SCHEDULE, folder, measure=measure
    )


def test_learns_and_logs(tmp_path: Path) -> None:
    network = Line()
    figures = run(tmp_path, network)
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 4, 8, 12]
    assert lines[0]["schedule"]["learning_rate"] == 0.05
    assert lines[-1]["error"] == figures["error"] < lines[0]["error"] and figures["learns"] == 0
    assert lines[-1]["training"]["twice"] == pytest.approx(2 * lines[-1]["training"]["loss"])
    assert not network.training and network.frozen.tolist() == [1, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["line.jsonl", "line.pt"]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, stopped, resumed = Line(), Line(), Line()
    run(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stopped, stop_at=8)  # the last save is that of step 5
    run(tmp_path / "parts", resumed)
    assert torch.equal(whole.layer.weight, resumed.layer.weight)
    assert not torch.equal(whole.layer.weight, stopped.layer.weight)
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "parts" / "line.jsonl").read_text().splitlines()
    ]
    assert steps == [0, 4, 8, 8, 12]


def test_a_finished_run_is_only_measured(tmp_path: Path) -> None:
    network = Line()
    figures = run(tmp_path, network)
    again = Line()
    assert run(tmp_path, again, stop_at=0) == figures  # no step is taken
    assert torch.equal(again.layer.weight, network.layer.weight)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    network = Line()
    with pytest.raises(FloatingPointError, match="line: the loss of step 6 is nan"):
        run(tmp_path, network, nan_at=6)
    assert network.layer.weight.isfinite().all()
    assert torch.load(tmp_path / "line.pt", weights_only=True)["step"] == 5


def test_rate_rises_and_falls() -> None:
    rates = [SCHEDULE.rate(step) for step in range(12)]
    assert rates[:3] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05])
    assert all(a > b for a, b in pairwise(rates[3:]))
    assert SCHEDULE.rate(12) == pytest.approx(0.05 * SCHEDULE.final_rate)
