"""The loop that all training stages share: seeded by step, resumable, with a progress bar and a log.

A step draws its batch from `numpy.random.default_rng([seed, step])`, so that a run that was stopped and goes
on sees the same songs as one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from songgen_core.atomic import complete_or_nothing

from .fused import fused_attention

Loss = Callable[[np.random.Generator], tuple[Tensor, Mapping[str, float]]]  # loss, and what else to note
Measure = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Schedule:
    """steps, learning rate at its height, and how it gets there and back (linear warm-up, cosine)."""

    steps: int
    learning_rate: float
    warmup: int = 50
    final_rate: float = 0.05  # of `learning_rate`
    weight_decay: float = 0.01
    max_gradient: float = 1.0
    measure_every: int = 500
    save_every: int = 250
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        share = self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * min(1.0, done))) / 2
        return self.learning_rate * share


def train(
    name: str,
    network: nn.Module,
    parameters: Iterable[nn.Parameter],
    loss: Loss,
    schedule: Schedule,
    folder: Path,
    *,
    measure: Measure = dict,
) -> dict[str, float]:
    """Train `parameters` of `network` in place; returns what `measure` says at the end.

    `folder` gets `name.pt` (network, optimiser, step; from which a second call goes on) and `name.jsonl`, one
    line per measurement. Raises FloatingPointError when the loss is no number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file, log_file = folder / f"{name}.pt", folder / f"{name}.jsonl"
    trained = [p for p in dict.fromkeys(parameters) if p.requires_grad]  # tables may be shared
    optimiser = torch.optim.AdamW(
        trained, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
    )
    first, earlier = _resume(state_file, network, optimiser)
    figures: dict[str, float] = {}
    if first == 0:
        log_file.unlink(missing_ok=True)
        figures = _measured(measure, network)
        _note(log_file, {"step": 0, **figures, "schedule": asdict(schedule)})
    started = time.monotonic() - earlier
    heard: dict[str, float] = {}  # running means of what the steps say
    bar = tqdm(range(first, schedule.steps), desc=name, initial=first, total=schedule.steps, mininterval=2)
    network.train()
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        with fused_attention():
            value, details = loss(np.random.default_rng([schedule.seed, step]))
        if not torch.isfinite(value):
            raise FloatingPointError(f"{name}: the loss of step {step} is {value.item()}")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, schedule.max_gradient)
        optimiser.step()
        for key, number in {"loss": value.item(), **details}.items():
            heard[key] = 0.95 * heard.get(key, number) + 0.05 * number
        bar.set_postfix({k: f"{v:.3g}" for k, v in heard.items()}, refresh=False)
        done = step + 1
        if done % schedule.measure_every == 0 or done == schedule.steps:
            figures = _measured(measure, network)
            minutes = (time.monotonic() - started) / 60
            _note(log_file, {"step": done, "minutes": minutes, "training": heard, **figures})
        if done % schedule.save_every == 0 or done == schedule.steps:
            _save(state_file, network, optimiser, done, time.monotonic() - started)
    figures = figures or _measured(measure, network)
    network.eval()
    return figures


def _measured(measure: Measure, network: nn.Module) -> dict[str, float]:
    network.eval()
    with torch.inference_mode():
        figures = dict(measure())
    network.train()
    return figures


def _resume(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """Load what an earlier call left; the step to go on with, and the seconds that those before it took."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), float(state.get("seconds", 0.0))


def _save(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
    with complete_or_nothing(path) as temporary:
        torch.save({**state, "step": step, "seconds": seconds}, temporary)


def _note(path: Path, figures: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(figures) + "\n")
