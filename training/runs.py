"""The stages in their order: what each one needs, trains and leaves behind in the folder of a run."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from songgen_core.atomic import complete_or_nothing
from songgen_core.checkpoint.loader import assign
from songgen_core.configs import FRAME_RATE, LeLMConfig
from songgen_core.models.codec_encoder import CodecEncoder
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import LeLM
from songgen_core.models.oobleck import OobleckVAE
from songgen_core.text.bpe import TextTokenizers, load_tokenizers
from songgen_core.text.phonetics import Lexicon

from .card import Origin, make_card
from .dpo import preference_loss, preference_measure, with_reference
from .export import Networks, hashes, write_checkpoint
from .factors import plain
from .lm import extend_loss, extended, make_lm, pretrain_loss, pretrained
from .lm_batches import SongSource
from .lm_measure import lm_measure
from .loop import Loss, Measure, train
from .preferences import draw_pairs
from .renderer import (
    Latents,
    encode_takes,
    make_renderer,
    read_latents,
    renderer_loss,
    renderer_measure,
    save_latents,
)
from .settings import Settings, Stage
from .stored_prompts import write_stored_prompts
from .synth.corpus import random_request
from .takes import Take, make_corpus
from .tokenizers import encoder_loss, encoder_measure, make_encoder
from .vae import make_vae, vae_loss, vae_measure

_CODEC = ("renderer", "mixed_encoder", "dual_encoder", "vae")
_STORED_PROMPTS = 3  # for each genre and language
_HELD_OUT_SEED = 1_000_003  # songs that no stage trains on


class Run:
    """One training run in `folder`."""

    def __init__(self, settings: Settings, folder: Path, lexicon: Path) -> None:
        self.settings, self.folder = settings, folder
        self.lexicon_file, self.lexicon = lexicon, Lexicon.read(lexicon)
        self.make_request = lambda rng, seconds: random_request(rng, self.lexicon, seconds)

    def stage(self, name: str) -> dict[str, float]:
        """Run one stage; returns what was measured on held-out songs at its end."""
        stages: dict[str, Callable[[], dict[str, float]]] = {
            "vae": self._vae,
            "mixed_encoder": partial(self._encoder, dual=False),
            "dual_encoder": partial(self._encoder, dual=True),
            "renderer": self._renderer,
            "pretrain": self._pretrain,
            "extend": self._extend,
            "dpo": self._dpo,
            "export": self._export,
        }
        return stages[name]()

    @cached_property
    def takes(self) -> list[Take]:
        seconds = self.settings.take_seconds
        count = max(1, round(self.settings.corpus_minutes * 60 / seconds))
        return make_corpus(self.make_request, count, seconds, self.settings.seed)

    @cached_property
    def held_out(self) -> list[Take]:
        count, seconds = self.settings.held_out, self.settings.take_seconds
        return make_corpus(self.make_request, count, seconds, _HELD_OUT_SEED, "held-out songs")

    @cached_property
    def latents(self) -> tuple[list[Latents], list[Latents]]:
        """Of the corpus and of the held-out songs, kept on disk."""
        vae = self.finished("vae")
        settings = self.settings
        data = self._finished_file("vae").read_bytes()
        made_from = settings.seed, settings.corpus_minutes, settings.take_seconds, settings.held_out
        key = hashlib.sha256(data + repr(made_from).encode()).hexdigest()
        both = []
        for name in ("takes", "held_out"):
            file = self.folder / f"{name}.latents.pt"
            songs = read_latents(file, key)
            if songs is None:
                songs = encode_takes(vae, getattr(self, name))
                save_latents(file, songs, key)
            both.append(songs)
        return both[0], both[1]

    def _vae(self) -> dict[str, float]:
        stage = self.settings.stages["vae"]
        vae = make_vae(self.settings.vae(), self.takes, self.settings.seed)
        loss = vae_loss(vae, self.takes, stage.size, _frames(stage))
        return self._train("vae", vae, list(vae.parameters()), loss, vae_measure(vae, self.held_out))

    def _encoder(self, dual: bool) -> dict[str, float]:
        name = "dual_encoder" if dual else "mixed_encoder"
        stage = self.settings.stages[name]
        encoder = make_encoder(self.settings.encoder(dual), self.settings.seed)
        loss = encoder_loss(encoder, self.takes, stage.size, _frames(stage))
        return self._train(
            name,
            encoder,
            list(encoder.parameters()),
            loss,
            encoder_measure(encoder, self.held_out, _frames(stage)),
        )

    def _renderer(self) -> dict[str, float]:
        stage = self.settings.stages["renderer"]
        songs, held_out = self.latents
        renderer = make_renderer(self.settings.renderer(), songs, self.settings.seed)
        loss = renderer_loss(renderer, songs, stage.size, _frames(stage))
        measure = renderer_measure(renderer, held_out, len(held_out), _frames(stage))
        return self._train("renderer", renderer, list(renderer.parameters()), loss, measure)

    def _pretrain(self) -> dict[str, float]:
        lm, source = self._new_lm()
        stage = self.settings.stages["pretrain"]
        loss = pretrain_loss(lm, source, stage.size, stage.seconds)
        measure = lm_measure(lm, source, self.settings.held_out, self.settings.measured_seconds, streams=1)
        return self._train("pretrain", lm, list(pretrained(lm)), loss, measure)

    def _extend(self) -> dict[str, float]:
        lm, source = self._new_lm()
        self._load("pretrain", lm)
        stage = self.settings.stages["extend"]
        for parameter in pretrained(lm):
            parameter.requires_grad_(False)
        loss = extend_loss(lm, source, stage.size, stage.seconds)
        measure = lm_measure(lm, source, self.settings.held_out, self.settings.measured_seconds, streams=3)
        return self._train("extend", lm, list(extended(lm)), loss, measure)

    def _dpo(self) -> dict[str, float]:
        lm, source = self._new_lm()
        self._load("extend", lm)
        settings, stage = self.settings, self.settings.stages["dpo"]
        options = settings.pairs
        pairs, held_out = (
            draw_pairs(lm, source, drawn, stage.seconds, seed, self.folder / f"{name}.pairs.pt")
            for name, drawn, seed in (
                ("dpo", options, settings.seed + 1),
                ("dpo.held_out", replace(options, count=options.held_out), _HELD_OUT_SEED),
            )
        )
        judged, held_out_judged = (with_reference(lm, some, stage.size) for some in (pairs, held_out))
        loss = preference_loss(lm, judged, stage.size, settings.preference)
        songs = lm_measure(lm, source, settings.held_out, settings.measured_seconds, streams=3)
        measure = preference_measure(lm, held_out_judged, stage.size, songs)
        return self._train("dpo", lm, list(lm.parameters()), loss, measure)

    def _export(self) -> dict[str, float]:
        stage = next((n for n in ("dpo", "extend") if self._finished_file(n).exists()), "extend")
        others = {name: self.finished(name) for name in _CODEC}
        networks = Networks(lm=self.finished(stage), **others)
        origin = Origin(self.folder, self.settings.file, stage)
        folder = self.folder / self.settings.name
        card = partial(make_card, networks=networks, settings=self.settings, origin=origin)
        source = SongSource(self.make_request, self._tokenizers, self._lm_config)
        prompts = partial(write_stored_prompts, source=source, count=_STORED_PROMPTS)
        write_checkpoint(folder, networks, self.lexicon_file, prompts, card)
        return {"megabytes": sum(size for size, _ in hashes(folder).values()) / 1e6}

    @cached_property
    def _lm_config(self) -> LeLMConfig:
        return self.settings.lm(self._tokenizers)

    @cached_property
    def _tokenizers(self) -> TextTokenizers:
        return load_tokenizers(self.lexicon_file.parent, "v2")

    def _new_lm(self) -> tuple[LeLM, SongSource]:
        source = SongSource(self.make_request, self._tokenizers, self._lm_config)
        return make_lm(self._lm_config, self.settings.seed), source

    def _train(
        self, name: str, network: nn.Module, parameters: list[nn.Parameter], loss: Loss, measure: Measure
    ) -> dict[str, float]:
        schedule = self.settings.stages[name].schedule
        figures = train(name, network, parameters, loss, schedule, self.folder, measure=measure)
        with complete_or_nothing(self._finished_file(name)) as temporary:
            torch.save(plain(network).state_dict(), temporary)
        return figures

    def _finished_file(self, name: str) -> Path:
        return self.folder / f"{name}.finished.pt"

    def _load(self, name: str, network: nn.Module) -> None:
        """What a stage left, tables still as sums, into a network that goes on with it."""
        path = self.folder / f"{name}.pt"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run the stage '{name}' first")
        network.load_state_dict(torch.load(path, weights_only=True)["network"])

    def finished(self, name: str) -> Any:
        """The network that a stage left, with ordinary tables."""
        path = self._finished_file(name)
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run the stage '{name}' first")
        state = torch.load(path, weights_only=True)
        settings = self.settings
        if name == "vae":
            return assign(OobleckVAE, settings.vae(), state, str(path))
        if name == "renderer":
            return assign(FlowRenderer, settings.renderer(), state, str(path))
        if name in ("mixed_encoder", "dual_encoder"):
            return assign(CodecEncoder, settings.encoder(name == "dual_encoder"), state, str(path))
        return assign(LeLM, self._lm_config, state, str(path))


def _frames(stage: Stage) -> int:
    return round(stage.seconds[1] * FRAME_RATE)
