"""LeLM, the hierarchical language model: one pass over columns of three delayed code streams.

The main transformer predicts the mixed stream (0); a bridge hands its hidden states, together with the
embeddings of the other streams, to the sub transformer, which predicts vocal (1) and accompaniment (2).

Letters: B batch rows (song rows first, then their unconditional twins), K streams, S columns, P prefix
positions, D width, V logits per stream (codes and EOS).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..configs import LeLMConfig
from ..layers.kv_cache import KVCache
from ..layers.llama import LlamaStack


class Conditions(NamedTuple):
    """Inputs of the prefix for B rows, all int64."""

    lyrics: Tensor  # [B, lyrics_length] token ids, padded
    structure: Tensor  # [B, lyrics_length] structure index of each lyric position
    description: Tensor  # [B, description_length] token ids, padded
    prompt: Tensor  # [B, K, prompt_length - 1] codes

    def to(self, device: torch.device | str) -> "Conditions":
        return Conditions(*(t.to(device) for t in self))


class LMCache(NamedTuple):
    """KV caches of both transformers."""

    main: KVCache
    sub: KVCache


class Conditioner(nn.Module):
    """Text and prompt codes to the prefix of either transformer: [lyrics ; prompt ; description]."""

    def __init__(self, config: LeLMConfig) -> None:
        super().__init__()
        width, num_codes = config.hidden_size, config.codebook_size + 2
        self.lyrics_embedding = nn.Embedding(config.lyrics_vocab_size, width)
        self.structure_embedding = nn.Embedding(config.num_structures, width)
        self.description_embedding = nn.Embedding(config.description_vocab_size, width)
        self.prompt_embeddings = nn.ModuleList(
            nn.Embedding(num_codes, width) for _ in range(config.num_codebooks)
        )
        self.prompt_start = nn.Embedding(1, width)
        self.prompt_start_sub = nn.Embedding(1, width)

    def forward(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Prefixes of the main and the sub transformer, each [B, P, D]. Padding is attended to, by design."""
        lyrics = self.lyrics_embedding(conditions.lyrics) + self.structure_embedding(conditions.structure)
        description = self.description_embedding(conditions.description)
        main, vocal, bgm = (emb(conditions.prompt[:, k]) for k, emb in enumerate(self.prompt_embeddings))
        first = torch.zeros_like(conditions.lyrics[:, :1])  # (B, 1)
        prompt = torch.cat([self.prompt_start(first), main], dim=1)
        prompt_sub = torch.cat([self.prompt_start_sub(first), vocal + bgm], dim=1)
        return (
            torch.cat([lyrics, prompt, description], dim=1),
            torch.cat([lyrics, prompt_sub, description], dim=1),
        )


class LeLM(nn.Module):
    """Columns of codes to logits of the next column (LeVo spec 6)."""

    def __init__(self, config: LeLMConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.conditioner = Conditioner(config)
        self.code_embeddings = nn.ModuleList(
            nn.Embedding(config.codebook_size + 2, width) for _ in range(config.num_codebooks)
        )
        self.main = self._stack(config.num_hidden_layers, config.rope_theta)
        self.bridge = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.sub = self._stack(config.num_hidden_layers_sub, config.rope_theta_sub)
        self.heads = nn.ModuleList(
            nn.Linear(width, config.codebook_size + 1, bias=False) for _ in range(config.num_codebooks)
        )

    def forward(
        self,
        codes: Tensor,
        cache: LMCache | None = None,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Logits [B, K, S, V] after each column of `codes` [B, K, S] (int64).

        The first pass of a song takes the `prefix` of `self.conditioner`; with a cache, later passes take
        only the new columns.
        """
        main = self.code_embeddings[0](codes[:, 0])  # (B, S, D)
        sub = self.code_embeddings[1](codes[:, 1]) + self.code_embeddings[2](codes[:, 2])
        if prefix is not None:
            main, sub = (
                torch.cat([prefix[0], main], dim=1),
                torch.cat([prefix[1], sub], dim=1),
            )  # (B, P + S, D)
        hidden = self.main(main, cache and cache.main)
        hidden_sub = self.sub(self.bridge(torch.cat([sub, hidden], dim=-1)), cache and cache.sub)
        num_columns = codes.shape[-1]
        hidden, hidden_sub = (
            hidden[:, -num_columns:],
            hidden_sub[:, -num_columns:],
        )  # the prefix has no logits
        return torch.stack([head(h) for head, h in zip(self.heads, (hidden, hidden_sub, hidden_sub))], dim=1)

    def make_cache(self, rows: int, max_seq_len: int, dtype: torch.dtype, device: torch.device) -> LMCache:
        return LMCache(
            *(stack.make_cache(rows, max_seq_len, dtype, device) for stack in (self.main, self.sub))
        )

    def _stack(self, num_layers: int, rope_theta: float) -> LlamaStack:
        c = self.config
        return LlamaStack(
            c.hidden_size, c.intermediate_size, c.num_attention_heads, num_layers, rope_theta, c.rms_norm_eps
        )
