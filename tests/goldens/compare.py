"""Small helpers for comparing tensors with recorded ones."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def tensors(folder: Path, name: str) -> dict[str, Tensor]:
    path = folder / f"{name}.safetensors"
    return load_file(path) if path.exists() else {}


def assert_close(actual: Tensor, expected: Tensor, atol: float, what: str) -> None:
    assert actual.shape == expected.shape, (
        f"{what}: shape {tuple(actual.shape)}, recorded {tuple(expected.shape)}"
    )
    infinite = expected.isinf()
    assert torch.equal(actual.isinf(), infinite), f"{what}: infinities differ"
    assert torch.equal(actual[infinite], expected[infinite]), f"{what}: signs of infinities differ"
    error = (actual.double() - expected.double())[~infinite].abs()
    worst = error.max().item() if error.numel() else 0.0
    assert worst <= atol, f"{what}: max abs error {worst:.3g} exceeds {atol:g}"


def assert_same(actual: Tensor, expected: Tensor, what: str) -> None:
    assert torch.equal(actual, expected), f"{what} differs from the recorded values"
