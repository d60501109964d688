"""The language model, one column at a time, on fixed buffers (LeVo spec 6).

The prefix runs through the reference network; what is here takes over its KV caches and continues.

Letters: B songs, R rows (all songs, then their unconditional twins), K streams, D width, H heads, V logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from ..layers.llama import LlamaDecoderLayer, LlamaStack
from ..layers.norm import RMSNorm
from ..layers.rope import rotary_table
from ..models.lelm import Conditions, LeLM
from .caches import AnyCache, Position
from .projections import Projection

Network = Callable[[Tensor, Position], Tensor]  # columns [R, K] -> logits [R, K, V]
Project = Callable[[Sequence[nn.Module]], Projection]
_ROWS_AT_ONCE = 2  # of the prefix: bounds the memory of its attention


@dataclass(frozen=True)
class FastLayer:
    """One decoder layer as its products."""

    input_norm: RMSNorm
    qkv: Projection
    out: Projection
    mlp_norm: RMSNorm
    gate_up: Projection
    down: Projection


class FastStack:
    """A Llama stack for one new position per row."""

    def __init__(
        self, stack: LlamaStack, project: Project, cache: AnyCache, max_seq_len: int, dtype: torch.dtype
    ) -> None:
        self.stack, self.cache, self.num_heads = stack, cache, stack.num_heads
        self.layers = [_fast_layer(layer, project) for layer in stack.layers]
        device = stack.norm.weight.device
        positions = torch.arange(max_seq_len, device=device)
        self.cos, self.sin = rotary_table(positions, stack.head_dim, stack.rope_theta, dtype)  # (L, D/H) each

    def step(self, x: Tensor, at: Position) -> Tensor:
        """Hidden states x [R, D] of the column at `at` -> [R, D] after the final norm."""
        cos, sin = self.cos.index_select(0, at.index), self.sin.index_select(0, at.index)  # (1, D/H)
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(normalized(x, layer.input_norm)).unflatten(-1, (3, self.num_heads, -1))
            q, k = _rotate(qkv[:, :2], cos, sin).unbind(1)  # (R, H, D/H) each
            heard = self.cache.attend(number, q, k, qkv[:, 2], at)
            x = x + layer.out(heard.flatten(1))
            gate, up = layer.gate_up(normalized(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(silu(gate) * up)
        return normalized(x, self.stack.norm)


class FastLM:
    """LeLM for decoding: `prefill` once, then `step` for every column."""

    def __init__(
        self,
        lm: LeLM,
        project: Project,
        caches: tuple[AnyCache, AnyCache],
        max_seq_len: int,
        dtype: torch.dtype,
    ) -> None:
        """`project` makes one product of layers that share an input; one cache per transformer."""
        self.lm = lm
        self.main, self.sub = (
            FastStack(stack, project, cache, max_seq_len, dtype)
            for stack, cache in zip((lm.main, lm.sub), caches)
        )
        widen, gelu, narrow = lm.bridge
        self.bridge: tuple[Projection, ...] = project([widen]), gelu, project([narrow])
        self.main_head, self.sub_heads = project(list(lm.heads[:1])), project(list(lm.heads[1:]))

    def prefill(self, conditions: Conditions, dtype: torch.dtype) -> Tensor:
        """Run the prefix and the start column of R rows; logits [R, K, V] of column 1.

        Rows that are alike (unconditional ones, takes of one song) are computed once.
        """
        lm, config = self.lm, self.lm.config
        rows, unique = distinct_rows(conditions)
        device = conditions.lyrics.device
        home = lm.conditioner.lyrics_embedding.weight.device  # the text tables may stay in RAM
        start = torch.full((_ROWS_AT_ONCE, config.num_codebooks, 1), config.special_id, device=device)
        logits = []
        for begin in range(0, len(unique), _ROWS_AT_ONCE):
            group = Conditions(*(t[unique[begin : begin + _ROWS_AT_ONCE]] for t in conditions))
            size = group.lyrics.shape[0]
            cache = lm.make_cache(size, config.prefix_length + 1, dtype, device)
            main, sub = lm.conditioner(group.to(home))
            prefix = main.to(device), sub.to(device)
            logits.append(lm(start[:size], cache, prefix)[:, :, -1])
            here = ((rows >= begin) & (rows < begin + size)).nonzero().flatten()
            for fast, kv in zip((self.main, self.sub), cache):
                for layer, (k, v) in enumerate(zip(kv.keys, kv.values)):
                    fast.cache.load(layer, k, v, here, rows[here] - begin)
        return torch.cat(logits)[rows]

    def step(self, columns: Tensor, at: Position) -> Tensor:
        """Columns [R, K] int64 of the position `at` -> logits [R, K, V] of the next column."""
        lm = self.lm
        main, vocal, bgm = (table(columns[:, k]) for k, table in enumerate(lm.code_embeddings))
        hidden = self.main.step(main, at)
        x = torch.cat([vocal + bgm, hidden], dim=-1)
        for layer in self.bridge:
            x = layer(x)
        hidden_sub = self.sub.step(x, at)
        logits = torch.cat([self.main_head(hidden), self.sub_heads(hidden_sub)], dim=-1)
        return logits.unflatten(-1, (lm.config.num_codebooks, -1))


def distinct_rows(conditions: Conditions) -> tuple[Tensor, Tensor]:
    """Which of the distinct rows each row is, [R], and where each distinct one first stands, [U]."""
    flat = torch.cat([t.flatten(1) for t in conditions], dim=1)
    _, rows = flat.unique(dim=0, return_inverse=True)
    first = torch.stack([(rows == n).nonzero()[0, 0] for n in range(int(rows.max()) + 1)])
    order = first.argsort()  # in order of appearance, which keeps a song and its twin in one pass
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank[rows], first[order]


def normalized(x: Tensor, norm: RMSNorm) -> Tensor:
    """`norm(x)` with its statistics in float32 by one kernel."""
    return norm.weight.to(x.dtype) * rms_norm(x.float(), x.shape[-1:], None, norm.eps).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [R, 2, H, D/H]; cos, sin [1, D/H]: `rotate_half_split` of queries and keys together."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _fast_layer(layer: nn.Module, project: Project) -> FastLayer:
    assert isinstance(layer, LlamaDecoderLayer)
    attn, mlp = layer.self_attn, layer.mlp
    return FastLayer(
        input_norm=layer.input_layernorm,
        qkv=project([attn.q_proj, attn.k_proj, attn.v_proj]),
        out=project([attn.o_proj]),
        mlp_norm=layer.post_attention_layernorm,
        gate_up=project([mlp.gate_proj, mlp.up_proj]),
        down=project([mlp.down_proj]),
    )
