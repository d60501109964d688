"""Limits of memory: set on a card alone, and taken back."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from songgen_core.devices import limited


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """A machine whose second card has 10 GB and is the current one; what torch was told."""
    told = [(0.75, 1)]

    def set_fraction(fraction: float, device: int) -> None:
        assert isinstance(fraction, float) and 0 <= fraction <= 1  # as torch wants it
        told.append((fraction, device))

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: SimpleNamespace(total_memory=10**10))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_fraction)
    monkeypatch.setattr(
        torch.cuda, "get_per_process_memory_fraction", lambda device: told[-1][0], raising=False
    )
    return told


@contextmanager
def interrupted() -> Iterator[None]:
    with pytest.raises(KeyboardInterrupt):
        yield


def test_a_limit_is_taken_back_whatever_happens(fractions: list[tuple[float, int]]) -> None:
    with interrupted(), limited(torch.device("cuda"), 5 * 10**9):
        assert fractions[-1] == (0.5, 1)
        raise KeyboardInterrupt
    assert fractions[-1] == (0.75, 1)


def test_a_limit_is_never_widened(fractions: list[tuple[float, int]]) -> None:
    with limited(torch.device("cuda", 1), 99 * 10**9):
        assert fractions[-1] == (0.75, 1)
    assert fractions[-1] == (0.75, 1)


def test_a_torch_that_cannot_tell_has_no_limit_afterwards(fractions, monkeypatch) -> None:
    monkeypatch.delattr(torch.cuda, "get_per_process_memory_fraction")
    with limited(torch.device("cuda"), 5 * 10**9):
        assert fractions[-1] == (0.5, 1)
    assert fractions[-1] == (1.0, 1)


@pytest.mark.parametrize(("device", "budget"), [("cpu", 10**9), ("mps", 10**9), ("cuda", None)])
def test_elsewhere_nothing_is_limited(fractions, device: str, budget: int | None) -> None:
    with limited(torch.device(device), budget):
        assert len(fractions) == 1
    assert len(fractions) == 1
