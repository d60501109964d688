"""Lyrics and style to codes: the writing of the song, apart from its rendering, so that each is cached."""

import logging
from dataclasses import replace
from typing import Any

from comfy_api.v0_0_2 import io

from ..songgen_core import FRAME_RATE, OUTPUTS, OutputType, SamplingOptions, UserError
from ..songgen_core.configs import LeLMConfig
from ..songgen_core.generation.songs import in_groups
from ..songgen_core.prompts.prompt import BOTH_GIVEN, Prompt
from ..songgen_core.seeds import MAX_SEED, following_seeds
from ..songgen_core.selftest import NOTICE
from ..songgen_core.text.lyrics import Song
from ..songgen_core.text.tags import Description
from ..songgen_core.writing import EMPTY_SONG, SongRequest, default_sampling, length_notes, write_songs
from . import host
from ._compat import inp, schema
from .sockets import CodesSocket, PromptSocket, SongModelSocket
from .text import EXAMPLE_LYRICS, bulleted, check_lyrics

log = logging.getLogger("songgen")

LONGEST, RECOMMENDED, MOST_CANDIDATES = 270.0, -1, 8
_LEFT_OUT = "seed {} is left out: the model ended the song before its first sound"


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
                    display_name="duration (s)",
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
                PromptSocket.Input(
                    "prompt",
                    optional=True,
                    tooltip=(
                        "From Audio Prompt or Genre Prompt: steers style and voice. Give a prompt or a"
                        " description; the models were trained with one of them."
                    ),
                ),
                inp(
                    io.Int.Input,
                    "candidates",
                    default=1,
                    min=1,
                    max=MOST_CANDIDATES,
                    step=1,
                    optional=True,
                    tooltip=(
                        "Several songs from the same lyrics in one go, with seed, seed + 1, ...; every node"
                        " behind runs once for each. The fast engine writes them side by side: less time per"
                        " song, more memory. The reference writes one after the other."
                    ),
                ),
            ],
            # Lists: ComfyUI runs what comes behind once per song.
            outputs=[
                CodesSocket.Output(
                    "codes", display_name="codes", tooltip="For Diffusion Render.", is_output_list=True
                ),
                io.Float.Output(
                    "seconds",
                    display_name="seconds",
                    tooltip="Length of the song in seconds.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="Seed, settings and advice, in words.",
                    is_output_list=True,
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, lyrics: str | None = None, description: str | None = None) -> bool | str:
        return host.problem((check_lyrics, lyrics), (Description.parse, description))

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
        prompt: Prompt | None = None,
        candidates: int = 1,
    ) -> io.NodeOutput:
        host.check_choice("output", output, OUTPUTS)
        if not 1 <= candidates <= MOST_CANDIDATES:
            raise UserError(f"candidates is {candidates}; choose 1 to {MOST_CANDIDATES}")
        seeds = following_seeds(seed, candidates)
        sampling = sampling_options(model.config, temperature, top_k, top_p, cfg_scale, repetition_window)
        style = Description.parse(description or "")
        song = Song.parse(lyrics)
        advice = [*song.warnings(), *style.warnings()]
        if prompt is not None and style.format():
            advice.append(BOTH_GIVEN)
        if prompt is None and not style.format():
            advice.append("no style was given: it is the model's choice")
        device, at_once = host.place_for_songs(model, duration, candidates)
        prompt_codes = None if prompt is None else prompt.codes
        requests = [SongRequest(lyrics, description, s, duration, output, prompt_codes) for s in seeds]
        advice += length_notes(requests[0], model.tokenizers, model.config)
        songs = write_songs(
            model.lm.model,
            model.tokenizers,
            requests,
            device=device,
            dtype=model.dtype,
            sampling=sampling,
            loop=in_groups(model.engine.song_loop(model.lm.model, device), at_once),
            on_progress=host.NodeProgress(cls, songs=candidates, num_codes=model.config.eos_id),
            cancelled=host.stop_if_cancelled,
        )
        notes = [_LEFT_OUT.format(seed) for seed, song in zip(seeds, songs) if song.is_empty]
        made = [(seed, song) for seed, song in zip(seeds, songs) if not song.is_empty]
        if not made:
            raise UserError(EMPTY_SONG)
        seconds = [song.codes.shape[-1] / FRAME_RATE for _, song in made]
        infos = [
            song_info(model, length, song.ended, seed, sampling, notes, advice)
            for length, (seed, song) in zip(seconds, made)
        ]
        return io.NodeOutput([song.codes for _, song in made], seconds, infos)


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
            display_name="repetition_window (frames)",
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
    """What the model recommends, with all values from 0 up put in; negative ones leave the choice to it."""
    asked: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "cfg_scale": cfg_scale,
        "repetition_window": repetition_window,
    }
    return replace(default_sampling(config), **{name: value for name, value in asked.items() if value >= 0})


def song_info(
    model: host.SongModel,
    seconds: float,
    ended: bool,
    seed: int,
    sampling: SamplingOptions,
    notes: list[str],
    advice: list[str],
) -> str:
    """What was made and how, one fact a line."""
    end = "ended by the model" if ended else "the time was up: a longer duration may hold more"
    lines = [
        f"{seconds:.1f} s of song, {end}",
        f"model {model.name}, seed {seed}, temperature {sampling.temperature:g}, top_k {sampling.top_k},"
        f" top_p {sampling.top_p:g}, cfg_scale {sampling.cfg_scale:g},"
        f" repetition_window {sampling.repetition_window}",
        *notes,
        *bulleted("advice:", advice),
    ]
    if model.is_selftest:
        log.warning(NOTICE)
        lines.insert(0, f"Attention: {NOTICE}")
    return "\n".join(lines)
