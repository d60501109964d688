"""The flow renderer, quicker: the same function of the same weights, in fewer passes over memory.

What never changes is computed once: rotary and learned positions, the masks, and the time modulation of
every Euler step. All rows of a step are at one time, so that modulation becomes the weight and bias of the
norms before it. Of the last layer only the channels that anybody reads are computed.

Of the unconditional row nothing else can be kept: its condition is zero, but its state differs at each step,
and the first norm already mixes both.

Letters: B rows, N frames of a window, C latent channels, D width, H heads.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, pad, scaled_dot_product_attention

from ..devices import free_memory
from ..layers.attention import attention
from ..layers.rope import rope_angles, rotate_interleaved
from ..models.flow_renderer import MASK_CONTEXT, MASK_GENERATE, FlowBlock, FlowRenderer
from .compiling import can_compile, compiled
from .projections import Packed, can_pack

log = logging.getLogger("songgen")

_WIDTH_UNIT = 8  # CUDA's fused attention kernels take heads of a multiple of this width


@dataclass(frozen=True, kw_only=True)
class RendererTricks:
    """One switch each. A switch that cannot work here turns itself off and says so in the log.

    share_times: the modulation of a time is computed once, and that of all Euler steps in one pass.
    fused_attention: torch's fused kernel in float32 too; the reference writes the formula out. 1e-5 apart.
    pad_heads: zero channels behind each head, up to a multiple of 8 (110 to 112). None: on CUDA in half
        precision, whose kernels else do it with a copy of their own or refuse.
    pack: the CPU's weights in oneDNN's blocked layout, a second copy of them while the renderer is in use;
        off by itself where it would take more than half of the free memory.
    compile: blocks through torch.compile. None: on CUDA where triton is installed.

    Where ComfyUI brings some of the weights to the device at each use, pack and compile are off.
    """

    share_times: bool = True
    fused_attention: bool = True
    pad_heads: bool | None = None
    pack: bool = True
    compile: bool | None = None


class BlockTime(NamedTuple):
    """What the flow time makes of one block's norms and gates, each [D] float32."""

    attn_weight: Tensor
    attn_bias: Tensor
    attn_gate: Tensor
    mlp_weight: Tensor
    mlp_bias: Tensor
    mlp_gate: Tensor


class StepTime(NamedTuple):
    """What the flow time makes of all blocks and of the last norm."""

    blocks: list[BlockTime]
    last_weight: Tensor  # [D] float32
    last_bias: Tensor


class Products(NamedTuple):
    """The four matrix products of a block, [B, N, inputs] -> [B, N, outputs]."""

    qkv: Callable[[Tensor], Tensor]
    attn_out: Callable[[Tensor], Tensor]
    mlp_in: Callable[[Tensor], Tensor]
    mlp_out: Callable[[Tensor], Tensor]


class Style(NamedTuple):
    """How a block computes; all of it is known before it runs."""

    num_heads: int
    eps: float
    dtype: torch.dtype
    padding: int  # zero channels behind each head
    fused_attention: bool
    real_rotation: bool  # rotary positions are angles [N, D/H/2], else complex numbers [N, 1, 1, D/H/2]
    in_place: bool  # the residual stream; compiled code must not change what it was given


RunBlock = Callable[[Tensor, Products, BlockTime, Tensor, Style], Tensor]


class FastRenderer(nn.Module):
    """Takes the place of a placed `FlowRenderer` in `denoise`, `render_windows` and `render_audio`.

    A module, so that `interruptible` finds its blocks and a stop takes effect within one of them. It reads
    the weights where they are, through their layers, and owns tables only: make one for each rendering, after
    the renderer was placed.

    In float32 it agrees with the reference within 1e-5 of the largest value; in half precision both are
    equally far from float32 (tests state 2e-2 for float16 and 1e-1 for bfloat16, after all steps).
    """

    def __init__(
        self, renderer: FlowRenderer, device: torch.device, tricks: RendererTricks = RendererTricks()
    ) -> None:
        """`device` computes; the layers of `renderer` lie there or bring their weights by themselves."""
        super().__init__()
        self.renderer, self.device, self.tricks = renderer, device, tricks
        self.config, self.latent_norm = renderer.config, renderer.latent_norm
        dtype = renderer.compute_dtype
        compile_blocks = self._lies_here() and can_compile(tricks.compile, device)
        self._style = Style(
            num_heads=self.config.num_attention_heads,
            eps=self.config.layer_norm_eps,
            dtype=dtype,
            padding=self._padding(),
            fused_attention=tricks.fused_attention or dtype != torch.float32,
            real_rotation=compile_blocks or device.type not in ("cpu", "cuda"),
            in_place=not compile_blocks,
        )
        pack = tricks.pack and not compile_blocks and self._lies_here() and self._can_pack()
        run = compiled_block() if compile_blocks else run_block
        self.h = nn.ModuleList(
            FastBlock(run, self._products(block, pack), self._style) for block in renderer.estimator.h
        )
        self._times: dict[float, StepTime] = {}
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._positions: dict[int, tuple[Tensor, Tensor]] = {}

    def prepare(self, num_steps: int) -> None:
        """Compute the modulation of all Euler steps in one pass; else each is computed when it is met."""
        if self.tricks.share_times:
            times = torch.linspace(0, 1, num_steps + 1, device=self.device)[:-1]
            self._times.update(zip(times.tolist(), self._modulations(times)))

    def condition(self, vocal_codes: Tensor, bgm_codes: Tensor) -> Tensor:
        """As `FlowRenderer.condition`."""
        return self.renderer.condition(vocal_codes, bgm_codes)

    def velocity(
        self, x: Tensor, t: Tensor, condition: Tensor, context: Tensor, context_frames: int
    ) -> Tensor:
        """As `FlowRenderer.velocity`. Quick where all rows are at the same time, which solvers see to."""
        mask = self._mask(x.shape[1], context_frames)
        return self.estimate(torch.cat([mask.expand(len(x), -1, -1), context, condition, x], dim=-1), t)

    def estimate(self, frames: Tensor, t: Tensor) -> Tensor:
        """Velocity [B, N, C] of input frames [B, N, D], which are overwritten, at flow times t [B]."""
        times = t.tolist()
        if len(set(times)) > 1:
            return torch.cat([self.estimate(*row) for row in zip(frames.split(1), t.split(1))])
        positions, rotary = self._position_tables(frames.shape[1])
        at = self._at(times[0], t[:1])
        x = frames.add_(positions)
        for block, block_time in zip(self.h, at.blocks):
            x = block(x, block_time, rotary)
        x = layer_norm(x, x.shape[-1:], at.last_weight, at.last_bias, self._style.eps).to(self._style.dtype)
        out = self.renderer.estimator.proj_out
        read = slice(-self.config.latent_dim, None)  # the rest of the output means nothing
        return linear(x, out.weight[read].to(x.device), out.bias[read].to(x.device))

    def _padding(self) -> int:
        wanted, half = self.tricks.pad_heads, self.renderer.compute_dtype != torch.float32
        if wanted is None:
            wanted = half and self.device.type == "cuda"
        wanted = wanted and (half or self.tricks.fused_attention)  # the formula takes any width
        return -self.config.head_dim % _WIDTH_UNIT if wanted else 0

    def _products(self, block: nn.Module, pack: bool) -> Products:
        assert isinstance(block, FlowBlock)
        layers = block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj
        rows = 2 * self.config.window_frames  # of both guidance rows
        return Products(*(Packed([layer], rows) if pack else layer for layer in layers))

    def _lies_here(self) -> bool:
        """Whether all weights of the blocks are on the device, so that nothing moves at each use."""
        return all(p.device.type == self.device.type for p in self.renderer.estimator.h.parameters())

    def _can_pack(self) -> bool:
        blocks = self.renderer.estimator.h
        size = sum(p.nbytes for p in blocks.parameters())
        if not can_pack(self.renderer.compute_dtype, self.device):
            return False
        free = free_memory()
        if free is not None and 2 * size > free:
            log.info("fast engine: pack is off for the renderer, %.1f GB of memory are free", free / 1e9)
            return False
        return True

    def _mask(self, frames: int, context_frames: int) -> Tensor:
        """Mask embedding of every frame, [N, mask_dim]."""
        key = frames, context_frames
        if key not in self._masks:
            mask = torch.full((frames,), MASK_GENERATE, device=self.device)
            mask[:context_frames] = MASK_CONTEXT
            self._masks[key] = self.renderer.mask_embedding(mask).float()
        return self._masks[key]

    def _position_tables(self, frames: int) -> tuple[Tensor, Tensor]:
        """Learned positions [N, D] and rotary ones, as the style wants them."""
        if frames not in self._positions:
            positions = torch.arange(frames, device=self.device)
            angles = rope_angles(positions, self.config.head_dim, self.config.rope_theta)  # (N, D/H/2)
            if not self._style.real_rotation:
                angles = torch.complex(angles.cos(), angles.sin())[:, None, None]
            self._positions[frames] = self.renderer.estimator.wpe(positions), angles
        return self._positions[frames]

    def _at(self, time: float, t: Tensor) -> StepTime:
        if not self.tricks.share_times:
            return self._modulations(t)[0]
        if time not in self._times:
            self._times[time] = self._modulations(t)[0]
        return self._times[time]

    def _modulations(self, t: Tensor) -> list[StepTime]:
        """Everything that depends on times t [S] alone, one entry per time."""
        estimator = self.renderer.estimator
        e, modulation = estimator.time(t, self._style.dtype)  # (S, D), (S, 6, D)
        blocks = zip(*(self._block_times(block, modulation) for block in estimator.h))
        table = estimator.scale_shift_table(torch.arange(2, device=t.device))
        shift, scale = (table + e[:, None]).float().unbind(1)
        last = zip(*folded(estimator.ln_f, shift, scale))
        return [StepTime(list(times), *norm) for times, norm in zip(blocks, last)]

    def _block_times(self, block: nn.Module, modulation: Tensor) -> list[BlockTime]:
        assert isinstance(block, FlowBlock)
        table = block.scale_shift_table(torch.arange(6, device=modulation.device))
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = (
            (table + modulation).float().unbind(1)  # (S, D) each
        )
        attn = *folded(block.ln_1, shift_attn, scale_attn), gate_attn
        mlp = *folded(block.ln_2, shift_mlp, scale_mlp), gate_mlp
        return [BlockTime(*rows) for rows in zip(*attn, *mlp)]


def folded(norm: nn.LayerNorm, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias [S, D] with which the norm itself does norm(x) * (1 + scale) + shift."""
    weight, bias = norm.weight.to(scale.device), norm.bias.to(scale.device)
    return weight * (1 + scale), bias * (1 + scale) + shift


class FastBlock(nn.Module):
    """One block of the transformer with its modulation folded away. Overwrites x [B, N, D] float32."""

    def __init__(self, run: RunBlock, products: Products, style: Style) -> None:
        super().__init__()
        self._run, self._products, self._style = run, products, style

    def forward(self, x: Tensor, at: BlockTime, rotary: Tensor) -> Tensor:
        return self._run(x, self._products, at, rotary, self._style)


def run_block(x: Tensor, products: Products, at: BlockTime, rotary: Tensor, style: Style) -> Tensor:
    """x [B, N, D] float32, changed in place where the style says so; the rest is in `style.dtype`.

    gelu is left to torch in half precision: its kernels compute it in float32 and round once, as the
    reference does by hand.
    """
    width = x.shape[-1:]
    u = layer_norm(x, width, at.attn_weight, at.attn_bias, style.eps).to(style.dtype)
    heads = attend(products.qkv(u), rotary, style)
    x = add_gated(x, at.attn_gate, products.attn_out(heads), style)
    u = layer_norm(x, width, at.mlp_weight, at.mlp_bias, style.eps).to(style.dtype)
    inner = gelu(products.mlp_in(u), approximate="tanh")
    return add_gated(x, at.mlp_gate, products.mlp_out(inner), style)


def add_gated(x: Tensor, gate: Tensor, change: Tensor, style: Style) -> Tensor:
    """x + gate * change in float32 and one pass."""
    return x.addcmul_(gate, change) if style.in_place else torch.addcmul(x, gate, change)


@cache
def compiled_block() -> RunBlock:
    return compiled(run_block)


def attend(qkv: Tensor, rotary: Tensor, style: Style) -> Tensor:
    """Attention of queries, keys and values, side by side in qkv [B, N, 3 * D], overwritten -> [B, N, D]."""
    heads = qkv.unflatten(-1, (3, style.num_heads, -1))  # (B, N, 3, H, D/H)
    head_dim = heads.shape[-1]
    turned = rotate(heads[:, :, :2], rotary, style)
    if style.padding:  # zero channels add nothing to any score
        turned, values = (pad(part, (0, style.padding)) for part in (turned, heads[:, :, 2]))
    else:
        values = heads[:, :, 2]
    q, k, v = (part.transpose(1, 2) for part in (*turned.unbind(2), values))  # (B, H, N, D/H)
    if style.fused_attention:
        out = scaled_dot_product_attention(q, k, v, scale=head_dim**-0.5)
    else:
        out = attention(q, k, v, causal=False)
    return out[..., :head_dim].transpose(1, 2).flatten(2)


def rotate(qk: Tensor, rotary: Tensor, style: Style) -> Tensor:
    """Queries and keys [B, N, 2, H, D/H], turned in float32 and cast back."""
    if style.real_rotation:
        return rotate_interleaved(qk.permute(0, 2, 3, 1, 4), rotary).permute(0, 3, 1, 2, 4)
    pairs = torch.view_as_complex(qk.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs.mul_(rotary)).flatten(-2).to(qk.dtype)
