"""Lyrics and style to codes, codes to audio: the two long steps, apart so that each is cached by itself."""

import logging
from dataclasses import replace
from typing import Any

import torch
from comfy_api.v0_0_2 import io

from ..songgen_core import (
    FRAME_RATE,
    OUTPUTS,
    OutputType,
    RenderOptions,
    SamplingOptions,
    render_audio,
    write_codes,
)
from ..songgen_core.audio import limiter
from ..songgen_core.configs import LeLMConfig
from ..songgen_core.pipeline import MAX_SEED, default_sampling
from ..songgen_core.selftest import NOTICE
from ..songgen_core.text.lyrics import Song
from ..songgen_core.text.tags import Description
from . import host
from ._compat import inp, schema
from .sockets import CodesSocket, SongModelSocket, to_audio
from .text import EXAMPLE_LYRICS, bulleted, lyrics_problem

log = logging.getLogger("songgen")

RENDERED = ("mixed", "vocal", "bgm")
LONGEST, RECOMMENDED = 270.0, -1


class GenerateTokens(io.ComfyNode):
    """Lyrics and style -> codes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenGenerateTokens",
            display_name="Generate Tokens",
            description=(
                "The language model writes the song: lyrics and style in, codes for Diffusion Render out."
                " The same seed and inputs give the same song on the same machine."
            ),
            search_aliases=["song", "music", "text to song", "LeVo"],
            inputs=[
                SongModelSocket.Input("model", tooltip="From Load LeVo Model."),
                inp(
                    io.String.Input,
                    "lyrics",
                    multiline=True,
                    default=EXAMPLE_LYRICS,
                    dynamic_prompts=False,
                    tooltip=(
                        "What is sung, with a tag such as [verse] above each section; best from Lyrics"
                        " Formatter."
                    ),
                ),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed gives another song.",
                ),
                inp(
                    io.Float.Input,
                    "duration",
                    default=60.0,
                    min=1.0,
                    max=LONGEST,
                    step=0.1,
                    round=0.01,
                    tooltip=(
                        "Longest allowed length in seconds; the model may end the song earlier by itself."
                        " Models make up to 150 or 270 s."
                    ),
                ),
                inp(
                    io.Combo.Input,
                    "output",
                    options=list(OUTPUTS),
                    default="mixed",
                    tooltip=(
                        "What the song is for. bgm writes accompaniment without a voice; mixed, vocal and"
                        " separate write the same codes, which hold voice and accompaniment apart."
                    ),
                ),
                inp(
                    io.String.Input,
                    "description",
                    multiline=True,
                    default="",
                    optional=True,
                    dynamic_prompts=False,
                    placeholder="female, dark, pop, sad, piano and drums, the bpm is 125.",
                    tooltip=(
                        "Style as English keywords; best from Description Tags. Empty: the model's choice."
                    ),
                ),
                *_sampling_inputs(),
            ],
            outputs=[
                CodesSocket.Output("codes", display_name="codes", tooltip="For Diffusion Render."),
                io.Float.Output("seconds", display_name="seconds", tooltip="Length of the song in seconds."),
                io.String.Output("info", display_name="info", tooltip="Seed, settings and advice, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, lyrics: str | None = None) -> bool | str:
        return lyrics_problem(lyrics)

    @classmethod
    def execute(
        cls,
        model: host.SongModel,
        lyrics: str,
        seed: int,
        duration: float,
        output: OutputType,
        description: str | None = None,
        temperature: float = RECOMMENDED,
        top_k: int = RECOMMENDED,
        top_p: float = RECOMMENDED,
        cfg_scale: float = RECOMMENDED,
        repetition_window: int = RECOMMENDED,
    ) -> io.NodeOutput:
        host.check_choice("output", output, OUTPUTS)
        sampling = sampling_options(model.config, temperature, top_k, top_p, cfg_scale, repetition_window)
        advice = [*Song.parse(lyrics).warnings(), *Description.parse(description or "").warnings()]
        device = host.place([model.lm], host.lm_memory(model, duration))
        codes, ended = write_codes(
            model.lm.model,
            model.tokenizers,
            lyrics,
            description,
            seed=seed,
            device=device,
            dtype=model.dtype,
            duration=duration,
            sampling=sampling,
            output=output,
            on_progress=host.NodeProgress(cls),
            cancelled=host.stop_if_cancelled,
        )
        seconds = codes.shape[-1] / FRAME_RATE
        return io.NodeOutput(codes, seconds, song_info(model, seconds, ended, seed, sampling, advice))


def _sampling_inputs() -> list[io.Input]:
    """How the model draws; -1 everywhere leaves the choice to the model."""
    common = {"default": RECOMMENDED, "min": RECOMMENDED, "optional": True, "advanced": True}
    whole, real = (
        {**common, "step": 1},
        {**common, "default": float(RECOMMENDED), "min": float(RECOMMENDED), "step": 0.05},
    )
    return [
        inp(
            io.Float.Input,
            "temperature",
            **real,
            max=10.0,
            tooltip=(
                "Courage of the draw: higher is wilder, 0 always takes the likeliest code. -1: as the"
                " model recommends."
            ),
        ),
        inp(
            io.Int.Input,
            "top_k",
            **whole,
            max=1_000_000,
            tooltip="How many of the likeliest codes may be drawn, 0: all. -1: as the model recommends.",
        ),
        inp(
            io.Float.Input,
            "top_p",
            **real,
            max=1.0,
            tooltip=(
                "Share of the probability that may be drawn from; replaces top_k. 0: off. -1: as the"
                " model recommends."
            ),
        ),
        inp(
            io.Float.Input,
            "cfg_scale",
            **real,
            max=100.0,
            tooltip="How closely lyrics and style are followed; 1 is off. -1: as the model recommends.",
        ),
        inp(
            io.Int.Input,
            "repetition_window",
            **whole,
            max=10_000,
            tooltip=(
                "Frames (25 a second) in which repeated codes are held back, 0: off. -1: as the model"
                " recommends."
            ),
        ),
    ]


def sampling_options(
    config: LeLMConfig, temperature: float, top_k: int, top_p: float, cfg_scale: float, repetition_window: int
) -> SamplingOptions:
    """What the model recommends, with all values that are not negative put in."""
    asked: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "cfg_scale": cfg_scale,
        "repetition_window": repetition_window,
    }
    return replace(
        default_sampling(config), **{name: value for name, value in asked.items() if value != RECOMMENDED}
    )


def song_info(
    model: host.SongModel,
    seconds: float,
    ended: bool,
    seed: int,
    sampling: SamplingOptions,
    advice: list[str],
) -> str:
    """What was made and how, one fact a line."""
    end = "ended by the model" if ended else "the time was up: a longer duration may hold more"
    lines = [
        f"{seconds:.1f} s of song, {end}",
        f"model {model.name}, seed {seed}, temperature {sampling.temperature:g}, top_k {sampling.top_k},"
        f" top_p {sampling.top_p:g}, cfg_scale {sampling.cfg_scale:g},"
        f" repetition_window {sampling.repetition_window}",
        *bulleted("advice:", advice),
    ]
    if model.is_selftest:
        log.warning(NOTICE)
        lines.insert(0, f"Attention: {NOTICE}")
    return "\n".join(lines)


class DiffusionRender(io.ComfyNode):
    """Codes -> AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenDiffusionRender",
            display_name="Diffusion Render",
            description=(
                "Renders codes to 48 kHz stereo. Use several of these nodes with one seed for mix, voice and"
                " accompaniment that fit together."
            ),
            search_aliases=["song", "music", "stems", "vocal", "LeVo"],
            inputs=[
                SongModelSocket.Input("model", tooltip="From Load LeVo Model."),
                CodesSocket.Input("codes", tooltip="From Generate Tokens."),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed changes details of the sound, not the song.",
                ),
                inp(
                    io.Combo.Input,
                    "output",
                    options=list(RENDERED),
                    default="mixed",
                    tooltip="mixed: the whole song. vocal: the voice alone. bgm: the accompaniment alone.",
                ),
                inp(
                    io.Int.Input,
                    "steps",
                    default=RenderOptions.num_steps,
                    min=1,
                    max=200,
                    tooltip="Steps of the diffusion: time grows with them, quality soon does not.",
                ),
                inp(
                    io.Float.Input,
                    "guidance_scale",
                    default=RenderOptions.guidance_scale,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How closely the sound follows the codes; 1 or less is off and twice as fast.",
                ),
                inp(
                    io.Boolean.Input,
                    "limit_peaks",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Turns loud passages down smoothly, so that no player clips them. Off: samples as"
                        " rendered."
                    ),
                ),
            ],
            outputs=[io.Audio.Output("audio", display_name="audio", tooltip="48 kHz stereo.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: host.SongModel,
        codes: torch.Tensor,
        seed: int,
        output: str,
        steps: int,
        guidance_scale: float,
        limit_peaks: bool = True,
    ) -> io.NodeOutput:
        host.check_choice("output", output, RENDERED)
        options = RenderOptions(steps, guidance_scale)
        vae, rate = model.vae.model, model.vae.model.config.sample_rate
        samples = render_audio(
            model.renderer.model,
            vae,
            codes,
            seed=seed,
            device=host.place([model.renderer, model.vae], host.render_memory()),
            output=output,
            options=options,
            on_progress=host.NodeProgress(cls),
            cancelled=host.stop_if_cancelled,
        )
        return io.NodeOutput(
            to_audio(limiter.limit_peaks(samples, sample_rate=rate) if limit_peaks else samples, rate)
        )
