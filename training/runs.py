"""The stages in their order: what each one needs, trains and leaves behind in the folder of a run."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from songgen_core.checkpoint.loader import assign
from songgen_core.configs import FRAME_RATE
from songgen_core.models.codec_encoder import CodecEncoder
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import LeLM
from songgen_core.models.oobleck import OobleckVAE
from songgen_core.text.bpe import load_tokenizers
from songgen_core.text.phonetics import Lexicon

from .factors import plain
from .lm import extend_loss, extended, make_lm, pretrain_loss, pretrained
from .lm_batches import SongSource
from .lm_measure import lm_measure
from .loop import train
from .renderer import Latents, encode_takes, make_renderer, renderer_loss, renderer_measure
from .settings import Settings, Stage
from .synth.corpus import random_request
from .takes import Take, make_corpus
from .tokenizers import encoder_loss, encoder_measure, make_encoder
from .vae import make_vae, vae_loss, vae_measure

_TAKE_SECONDS = 20.0
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
        }
        return stages[name]()

    @cached_property
    def takes(self) -> list[Take]:
        count = max(1, round(self.settings.corpus_minutes * 60 / _TAKE_SECONDS))
        return make_corpus(self.make_request, count, _TAKE_SECONDS, self.settings.seed)

    @cached_property
    def held_out(self) -> list[Take]:
        return make_corpus(
            self.make_request, self.settings.held_out, _TAKE_SECONDS, _HELD_OUT_SEED, "held-out songs"
        )

    @cached_property
    def latents(self) -> tuple[list[Latents], list[Latents]]:
        """Of the corpus and of the held-out songs."""
        vae = self.finished("vae")
        return encode_takes(vae, self.takes), encode_takes(vae, self.held_out)

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
            name, encoder, list(encoder.parameters()), loss, encoder_measure(encoder, self.held_out)
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
        measure = lm_measure(lm, source, self.settings.held_out, streams=1)
        return self._train("pretrain", lm, list(pretrained(lm)), loss, measure)

    def _extend(self) -> dict[str, float]:
        lm, source = self._new_lm()
        self._load("pretrain", lm)
        stage = self.settings.stages["extend"]
        for parameter in pretrained(lm):
            parameter.requires_grad_(False)
        loss = extend_loss(lm, source, stage.size, stage.seconds)
        measure = lm_measure(lm, source, self.settings.held_out, streams=3)
        return self._train("extend", lm, list(extended(lm)), loss, measure)

    def _new_lm(self) -> tuple[LeLM, SongSource]:
        tokenizers = load_tokenizers(self.lexicon_file.parent, "v2")
        config = self.settings.lm(tokenizers)
        return make_lm(config, self.settings.seed), SongSource(self.make_request, tokenizers, config)

    def _train(self, name: str, network: nn.Module, parameters: list[nn.Parameter], loss, measure) -> dict[str, float]:
        schedule = self.settings.stages[name].schedule
        figures = train(name, network, parameters, loss, schedule, self.folder, measure=measure)
        state = plain(network).state_dict()
        torch.save(state, self.folder / f"{name}.part")
        (self.folder / f"{name}.part").replace(self._finished_file(name))
        return figures

    def _finished_file(self, name: str) -> Path:
        return self.folder / f"{name}.finished.pt"

    def _load(self, name: str, network: nn.Module) -> None:
        """What a stage left, tables still as sums, into a network that goes on with it."""
        network.load_state_dict(torch.load(self.folder / f"{name}.pt", weights_only=True)["network"])

    def finished(self, name: str) -> nn.Module:
        """The network that a stage left, with ordinary tables."""
        path = self._finished_file(name)
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run the stage '{name}' first")
        state = torch.load(path, weights_only=True)
        makes = {
            "vae": (OobleckVAE, self.settings.vae),
            "renderer": (FlowRenderer, self.settings.renderer),
            "mixed_encoder": (CodecEncoder, partial(self.settings.encoder, dual=False)),
            "dual_encoder": (CodecEncoder, partial(self.settings.encoder, dual=True)),
            "extend": (LeLM, lambda: self.settings.lm(load_tokenizers(self.lexicon_file.parent, "v2"))),
            "dpo": (LeLM, lambda: self.settings.lm(load_tokenizers(self.lexicon_file.parent, "v2"))),
        }
        make, config = makes[name]
        return assign(make, config(), state, str(path))


def _frames(stage: Stage) -> int:
    return round(stage.seconds[1] * FRAME_RATE)
