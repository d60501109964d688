"""How long work tells where it is, and how it is stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from .errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage: "loading ..." (tensors), "tokens" (columns), "rendering".

    `made` is what there is to see so far, for a listener to look at and not to keep: columns [K, S] int64 of
    the stage "tokens", or latents [N, C] float, on any device, of the window that is being rendered.
    """

    stage: str
    done: int
    total: int
    made: Tensor | None = None


OnProgress = Callable[[Progress], None]
IsCancelled = Callable[[], bool]


def ignore_progress(progress: Progress) -> None:
    """The default listener."""


def never_cancelled() -> bool:
    return False


@contextmanager
def interruptible(cancelled: IsCancelled, *networks: nn.Module) -> Iterator[None]:
    """While active, every block of `networks` raises Cancelled before it runs once `cancelled()` is true.

    So a stop takes effect within one block, also in a long prefill or decode. `cancelled` may also raise
    an exception of its own.
    """

    def check(*_: object) -> None:
        if cancelled():
            raise Cancelled("stopped by the user")

    check()
    handles = [block.register_forward_pre_hook(check) for network in networks for block in _blocks(network)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Items of lists, and 2-d convolutions by themselves: they take seconds where the CPU does them."""
    for module in network.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            yield from module.children()
        if isinstance(module, nn.Conv2d):
            yield module


class UnitDone(Protocol):
    """To be called after each unit of a stage, with what was made if it can be shown."""

    def __call__(self, made: Tensor | None = None) -> None: ...


def count_progress(stage: str, total: int, on_progress: OnProgress) -> UnitDone:
    """A function to call after each of `total` units of a stage."""
    done = iter(range(1, total + 1))

    def unit_done(made: Tensor | None = None) -> None:
        on_progress(Progress(stage, next(done), total, made))

    return unit_done
