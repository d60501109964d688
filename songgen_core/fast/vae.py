"""The waveform VAE's decoder, quicker: the same convolutions, with less between them and less done twice.

Letters: B batch, C channels, N samples, T latent frames.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from math import ceil

import torch
from torch import Tensor, nn

from ..configs import OobleckConfig
from ..generation.chunked import chunk_starts, decode_chunked
from ..layers.snake import SnakeBeta
from ..models.oobleck import DecoderBlock, OobleckVAE, ResidualUnit
from .compiling import can_compile, compiled

Op = Callable[[Tensor], Tensor]
Snake = Callable[[Tensor, Tensor, Tensor, bool], Tensor]

_UNIT_REACH = sum(3 * dilation for dilation in (1, 3, 9))  # samples that the residual units of a block reach
_TILE_BYTES = 2 << 20  # of a tensor of the last stage, a few of which fit into a processor's cache


@dataclass(frozen=True, kw_only=True)
class VaeTricks:
    """One switch each. A switch that cannot work here turns itself off and says so in the log.

    close_chunks: chunks overlap by what the decoder reaches (18 frames), not by 32.
    tile_last_stage: the last stage, whose tensors are the largest, in pieces that stay in the cache. None: on
        the CPU. Takes a third of the memory.
    compile: the activations, each as one kernel. None: on CUDA where triton is installed. Rounds differently.
    autotune: let cuDNN try its algorithms. Off, as the choice, and with it the last bits, can differ from run
        to run. TF32 stays off in any case.
    chunk_frames: frames that are decoded at a time; memory is in proportion to it.
    """

    close_chunks: bool = True
    tile_last_stage: bool | None = None
    compile: bool | None = None
    autotune: bool = False
    chunk_frames: int = 128


class FastVAE(nn.Module):
    """Takes the place of a placed `OobleckVAE` where latents are decoded.

    With `compile` off and nothing tiled it is bit-equal to it, else equal up to rounding.

    A module over the layers of `vae`, which it calls, so that `interruptible` stops it within one of them.
    """

    def __init__(self, vae: OobleckVAE, device: torch.device, tricks: VaeTricks = VaeTricks()) -> None:
        """`device` computes; the layers of `vae` lie there or bring their weights by themselves."""
        super().__init__()
        assert vae.decoder is not None, "this VAE was loaded without its decoder"
        self.vae, self.config, self.device, self.tricks = vae, vae.config, device, tricks
        self._snake: Snake = compiled_snake() if can_compile(tricks.compile, device) else snake
        first, *stages, last_snake, last = vae.decoder.layers
        self._start: list[Op] = [first, *(op for stage in stages[:-1] for op in self._stage(stage))]
        self._end: list[Op] = [*self._stage(stages[-1]), self._activation(last_snake, in_place=True), last]
        tile = tricks.tile_last_stage
        self._tiled = (device.type == "cpu" if tile is None else tile) and not self.config.strides[0] % 2
        self.reach = decoder_reach(self.config)
        self.overlap = 2 * self.reach if tricks.close_chunks else max(32, 2 * self.reach)

    def decode(self, latents: Tensor) -> Tensor:
        """Audio [B, C, T * hop_length] of latents [B, latent_dim, T] float32, not clipped."""
        if not self._tiled:
            return run(self._start + self._end, latents)
        stride, reach = self.config.strides[0], last_stage_reach(self.config.strides[0])
        width = self.config.channels  # of both sides of the last stage's residual units
        return decode_chunked(
            lambda piece: run(self._end, piece.clone()),
            run(self._start, latents),
            stride,
            chunk_size=max(4 * reach, _TILE_BYTES // (4 * width * stride)),
            overlap=2 * reach,
        )

    def decode_chunks(self, latents: Tensor, on_chunk: Callable[[], None] = lambda: None) -> Tensor:
        """As `decode`, in chunks of `chunk_frames`; calls `on_chunk` `count_chunks(T)` times."""
        with self._autotuned():
            return decode_chunked(
                self.decode,
                latents,
                self.config.hop_length,
                chunk_size=self.chunk_frames,
                overlap=self.overlap,
                on_chunk=on_chunk,
            )

    @property
    def chunk_frames(self) -> int:
        """What was asked for, but enough that each chunk has frames of its own."""
        return max(self.tricks.chunk_frames, 2 * self.overlap)

    def count_chunks(self, frames: int) -> int:
        return len(chunk_starts(frames, self.chunk_frames, self.overlap))

    def _stage(self, stage: nn.Module) -> Iterator[Op]:
        """The operations of a `DecoderBlock`. They overwrite what goes in."""
        assert isinstance(stage, DecoderBlock)
        first_snake, up, *units = stage.layers
        yield self._activation(first_snake, in_place=True)
        yield up
        for unit in units:
            assert isinstance(unit, ResidualUnit)
            snake_1, conv_7, snake_2, conv_1 = unit.layers
            branch: list[Op] = [
                self._activation(snake_1, in_place=False),
                conv_7,
                self._activation(snake_2, in_place=True),
                conv_1,
            ]
            yield partial(add_branch, branch)

    def _activation(self, module: nn.Module, *, in_place: bool) -> Op:
        assert isinstance(module, SnakeBeta)
        alpha = module.alpha.to(self.device)[:, None].exp()
        gain = (module.beta.to(self.device)[:, None].exp() + 1e-9).reciprocal()
        activate = self._snake  # not self: a cycle would keep the networks until the next garbage collection
        return lambda x: activate(x, alpha, gain, in_place)

    @contextmanager
    def _autotuned(self) -> Iterator[None]:
        if not self.tricks.autotune or self.device.type != "cuda":
            yield
            return
        enabled = torch.backends.cudnn.enabled
        with torch.backends.cudnn.flags(
            enabled=enabled, benchmark=True, deterministic=False, allow_tf32=False
        ):
            yield


def run(ops: Sequence[Op], x: Tensor) -> Tensor:
    """One operation after the other; each result is given up as soon as the next one is there."""
    for op in ops:
        x = op(x)
    return x


def add_branch(branch: Sequence[Op], x: Tensor) -> Tensor:
    return x.add_(run(branch, x))


def snake(x: Tensor, alpha: Tensor, gain: Tensor, in_place: bool) -> Tensor:
    """x + gain * sin(x * alpha)^2 for x [B, C, N]; alpha is exp(alpha), gain 1 / (exp(beta) + 1e-9), [C, 1].

    The operations and their order are those of `SnakeBeta`, so that every bit is.
    """
    wave = (x * alpha).sin_().square_().mul_(gain)
    return x.add_(wave) if in_place else wave.add_(x)


def fused_snake(x: Tensor, alpha: Tensor, gain: Tensor) -> Tensor:
    return x + gain * torch.sin(x * alpha).square()


@cache
def compiled_snake() -> Snake:
    quick = compiled(fused_snake, dynamic=True)  # it meets 6 widths and as many lengths as songs have

    def activate(x: Tensor, alpha: Tensor, gain: Tensor, in_place: bool) -> Tensor:
        return quick(x, alpha, gain)

    return activate


def decoder_reach(config: OobleckConfig) -> int:
    """Latent frames on either side of a frame that its audio depends on: 9 for the published sizes."""
    low, high = 0 - 3, config.hop_length - 1 + 3  # samples that frame 0 needs before the last convolution
    for stride in config.strides:
        low, high = _stage_inputs(low, high, stride)
    return max(3 - low, high + 3)


def last_stage_reach(stride: int) -> int:
    """The same for the last stage with what follows it, in its own input samples."""
    low, high = _stage_inputs(0 - 3, stride - 1 + 3, stride)
    return max(-low, high)


def _stage_inputs(low: int, high: int, stride: int) -> tuple[int, int]:
    """First and last input sample that the output samples low..high of a `DecoderBlock` depend on."""
    padding = ceil(stride / 2)
    low, high = low - _UNIT_REACH, high + _UNIT_REACH
    return ceil((low + padding - 2 * stride + 1) / stride), (high + padding) // stride
