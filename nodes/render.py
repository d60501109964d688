"""Codes -> AUDIO: one track, or all three from the same codes and the same noise."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.v0_0_2 import io

from ..songgen_core import RenderOptions
from ..songgen_core.audio import limiter
from ..songgen_core.prompts.prompt import RENDERED, Prompt
from ..songgen_core.seeds import MAX_SEED
from . import host
from ._compat import inp, schema
from .sockets import CodesSocket, PromptSocket, SongModelSocket, to_audio


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
                *_song_inputs(),
                inp(
                    io.Combo.Input,
                    "output",
                    options=list(RENDERED),
                    default="mixed",
                    tooltip="mixed: the whole song. vocal: the voice alone. bgm: the accompaniment alone.",
                ),
                *_diffusion_inputs(),
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
                *_prompt_inputs(),
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
        prompt: Prompt | None = None,
        shifted_prompt: bool = False,
    ) -> io.NodeOutput:
        host.check_choice("output", output, RENDERED)
        options = RenderOptions(steps, guidance_scale, shifted_prompt)
        return io.NodeOutput(*rendered(cls, model, codes, [output], seed, options, prompt, limit_peaks))


class SplitStems(io.ComfyNode):
    """Codes -> three AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenSplitStems",
            display_name="Split Stems",
            description=(
                "Renders mix, voice and accompaniment from the same codes and the same noise; takes three"
                " times as long as one. They are three renders, not one cut in pieces: they fit together in"
                " time and tune, but vocal + bgm is near the mixed render, not equal to it. Make the mix of"
                " vocal and bgm yourself where they must add up."
            ),
            search_aliases=["vocal", "accompaniment", "karaoke", "instrumental", "LeVo"],
            inputs=[
                *_song_inputs(),
                *_diffusion_inputs(),
                inp(
                    io.Boolean.Input,
                    "limit_peaks",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Turns loud passages of each track down smoothly, each by itself. Off: samples as"
                        " rendered, which keeps the levels of the tracks comparable for mixing."
                    ),
                ),
                *_prompt_inputs(),
            ],
            outputs=[
                io.Audio.Output("mixed", display_name="mixed", tooltip="The whole song, 48 kHz stereo."),
                io.Audio.Output("vocal", display_name="vocal", tooltip="The voice alone, of equal length."),
                io.Audio.Output("bgm", display_name="bgm", tooltip="The accompaniment alone, likewise."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: host.SongModel,
        codes: torch.Tensor,
        seed: int,
        steps: int,
        guidance_scale: float,
        limit_peaks: bool = True,
        prompt: Prompt | None = None,
        shifted_prompt: bool = False,
    ) -> io.NodeOutput:
        # All three: no ComfyUI tells which outputs are connected in a way that its cache respects.
        options = RenderOptions(steps, guidance_scale, shifted_prompt)
        return io.NodeOutput(*rendered(cls, model, codes, RENDERED, seed, options, prompt, limit_peaks))


def rendered(
    node: type[Any],
    model: host.SongModel,
    codes: torch.Tensor,
    outputs: Sequence[str],
    seed: int,
    options: RenderOptions,
    prompt: Prompt | None,
    limit_peaks: bool,
) -> list[dict[str, Any]]:
    """One AUDIO per output, under one progress bar."""
    progress, vae = host.NodeProgress(node), model.vae.model
    device = host.place([model.renderer, model.vae], host.render_memory())
    tracks = []
    for number, output in enumerate(outputs):
        samples = model.engine.render_audio(
            model.renderer.model,
            vae,
            codes,
            seed=seed,
            device=device,
            output=output,
            prompt=prompt,
            options=options,
            on_progress=host.share_of(progress, number, len(outputs)),
            cancelled=host.stop_if_cancelled,
        )
        rate = vae.config.sample_rate
        tracks.append(
            to_audio(limiter.limit_peaks(samples, sample_rate=rate) if limit_peaks else samples, rate)
        )
    return tracks


def _song_inputs() -> list[io.Input]:
    return [
        SongModelSocket.Input("model", tooltip="From Load LeVo Model."),
        CodesSocket.Input("codes", tooltip="From Generate Tokens, Encode Audio Tokens or Load Tokens."),
        inp(
            io.Int.Input,
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="Another seed changes details of the sound, not the song.",
        ),
    ]


def _diffusion_inputs() -> list[io.Input]:
    return [
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
    ]


def _prompt_inputs() -> list[io.Input]:
    return [
        PromptSocket.Input(
            "prompt",
            optional=True,
            tooltip=(
                "From Audio Prompt, the one that Generate Tokens had: the sound goes on from the recording,"
                " which itself is not in the result. Prompts of a genre change nothing here."
            ),
        ),
        inp(
            io.Boolean.Input,
            "shifted_prompt",
            default=False,
            optional=True,
            advanced=True,
            tooltip="As the reference does: with a prompt, every code sounds 40 ms late. Only to compare.",
        ),
    ]
