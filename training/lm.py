"""The language model, in the stages of the LeVo paper.

    pretrain    main transformer: the mixed stream from lyrics, description and prompt, some left out at times
    extend      everything else, which writes vocal and accompaniment; what was learned before stays as it is

The third, preference alignment, is `dpo.py`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from songgen_core.configs import LeLMConfig
from songgen_core.models.lelm import Conditions, LeLM
from songgen_core.text.phonetics import PHONES

from .codes import SYLLABLE_CYCLE
from .factors import bgm_labels, label_tables, mixed_labels, share_labels, vocal_labels
from .lm_batches import SongBatch, SongSource
from .loop import Loss

_SHORT, _SHORT_LYRICS = 6.0, 128  # seconds; tokens that the lyrics of such a song never fill
LYRIC_PHONES = len(PHONES) - 1  # all but silence


def make_lm(config: LeLMConfig, seed: int = 0) -> LeLM:
    """A new language model whose tables share what ids have in common."""
    torch.manual_seed(seed)
    lm = LeLM(config)
    width = config.hidden_size
    for module in lm.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    # Key, voice and instrument are words that the first stage has no use for and leaves as they are: were
    # they small, the second one would hardly see them.
    nn.init.normal_(lm.conditioner.description_embedding.weight, std=0.5)
    depth = 2 * (config.num_hidden_layers + config.num_hidden_layers_sub)
    for stack in (lm.main, lm.sub):
        for layer in stack.layers:
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                nn.init.normal_(layer.get_parameter(f"{name}.weight"), std=0.02 / depth**0.5)
    for k, (labels, sizes) in enumerate((mixed_labels(), vocal_labels(), bgm_labels())):
        inputs = label_tables(sizes, width)
        share_labels(lm.code_embeddings[k], labels, inputs)
        share_labels(lm.heads[k], labels, label_tables(sizes, width))
        share_labels(lm.conditioner.prompt_embeddings[k], labels, label_tables(sizes, width))
        if k == 0:  # what is sung and what is to be sung look alike from the start
            numbers = np.arange(LYRIC_PHONES * SYLLABLE_CYCLE)
            lyrics = np.stack([numbers // SYLLABLE_CYCLE + 1, numbers % SYLLABLE_CYCLE], 1)
            share_labels(lm.conditioner.lyrics_embedding, lyrics, inputs[:2])
    return lm


def pretrained(lm: LeLM) -> Iterator[nn.Parameter]:
    """What the first stage trains: all that reaches the mixed stream."""
    for part in (lm.code_embeddings[0], lm.main, lm.heads[0]):
        yield from part.parameters()
    for name, parameter in lm.conditioner.named_parameters():
        if not name.startswith(("prompt_start_sub", "prompt_embeddings.1", "prompt_embeddings.2")):
            yield parameter


def extended(lm: LeLM) -> Iterator[nn.Parameter]:
    """What the second stage trains: everything else."""
    first = {id(p) for p in pretrained(lm)}
    return (p for p in lm.parameters() if id(p) not in first)


def mixed_logits(lm: LeLM, batch: SongBatch) -> Tensor:
    """Logits [B, S, V] of the mixed stream, from the main transformer alone."""
    prefix, _ = lm.conditioner(batch.conditions)
    hidden = lm.main(torch.cat([prefix, lm.code_embeddings[0](batch.inputs[:, 0])], dim=1))
    return lm.heads[0](hidden[:, -batch.inputs.shape[-1] :])


def all_logits(lm: LeLM, batch: SongBatch) -> Tensor:
    """Logits [B, K, S, V] of all streams."""
    return lm(batch.inputs, prefix=lm.conditioner(batch.conditions))


def without_padding(conditions: Conditions, longest: int) -> Conditions:
    """Lyrics cut to `longest` positions."""
    return conditions._replace(
        lyrics=conditions.lyrics[:, :longest], structure=conditions.structure[:, :longest]
    )


def stream_losses(logits: Tensor, targets: Tensor) -> list[Tensor]:
    """Mean cross entropy of each stream: logits [B, K, S, V], targets [B, K, S]."""
    streams = zip(logits.unbind(1), targets.unbind(1))
    return [cross_entropy(rows.flatten(0, 1).float(), wanted.flatten()) for rows, wanted in streams]


def pretrain_loss(lm: LeLM, source: SongSource, size: int, seconds: tuple[float, float]) -> Loss:
    """Cross entropy of the mixed stream over songs of `seconds` (shortest, longest)."""

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        length = float(rng.uniform(*seconds))
        batch = source.batch(rng, max(1, round(size * seconds[0] / length)), length)
        with torch.autocast("cpu", torch.bfloat16):
            logits = mixed_logits(lm, batch)
        return stream_losses(logits[:, None], batch.targets[:, :1])[0], {}

    return loss


def extend_loss(lm: LeLM, source: SongSource, size: int, seconds: tuple[float, float]) -> Loss:
    """Cross entropy of vocal and accompaniment.

    Short songs are drawn as often as long ones, octave by octave: a song's key, voice and instrument are
    chosen in its first frames, once.
    """

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        length = float(np.exp(rng.uniform(*np.log(seconds))))
        batch = source.batch(rng, max(1, round(size * seconds[0] / length)), length)
        if length < _SHORT:
            batch = replace(batch, conditions=without_padding(batch.conditions, _SHORT_LYRICS))
        with torch.autocast("cpu", torch.bfloat16):
            logits = all_logits(lm, batch)
        _, vocal, bgm = stream_losses(logits, batch.targets)
        return vocal + bgm, {"vocal": vocal.item(), "bgm": bgm.item()}

    return loss
