"""A whole song in one node: it puts the nodes of the long way together and lets ComfyUI run them."""

from typing import Any

from comfy.cli_args import args
from comfy_api.v0_0_2 import io
from comfy_execution import caching
from comfy_execution.graph_utils import GraphBuilder

from ..songgen_core import RenderOptions, UserError
from ..songgen_core.prompts.prompt import PROMPT_SECONDS, RENDERED
from ..songgen_core.seeds import MAX_SEED
from ..songgen_core.text.tags import Description
from . import host
from ._compat import inp, schema
from .generate import LONGEST
from .loaders import (
    AUTO,
    NEVER,
    NOT_ACCEPTED,
    LoadLeVoModel,
    check_model,
    download_inputs,
    model_input,
)
from .text import EXAMPLE_LYRICS, check_lyrics

_FEATURES = {False: "text", True: "text + recordings"}  # what a download is for: is a recording connected?


class Song(io.ComfyNode):
    """Lyrics and style -> AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        reference = io.Audio.Input(
            "reference",
            optional=True,
            tooltip=(
                "A recording whose style and voice the song takes up; its chorus is found by itself."
                " Leave style empty then."
            ),
        )
        # It arrives as a link to pass on: ComfyUI cannot tell whether two recordings are the same one.
        reference.extra_dict = {"rawLink": True}
        return schema(
            node_id="SongGenSong",
            display_name="Song (One Node)",
            description=(
                "Lyrics and style in, a song out: loads the model, mends the lyrics, writes and renders the"
                " song with the settings that the model recommends. The other nodes do the same step by"
                " step, with all settings."
            ),
            search_aliases=["music", "singing", "text to song", "LeVo", "SongGeneration", "beginner"],
            inputs=[
                model_input(),
                inp(
                    io.String.Input,
                    "lyrics",
                    multiline=True,
                    default=EXAMPLE_LYRICS,
                    dynamic_prompts=False,
                    tooltip=(
                        "What is sung, best with a tag such as [verse] or [chorus] above each section. Other"
                        " forms are mended; the report says how."
                    ),
                ),
                inp(
                    io.String.Input,
                    "style",
                    default="female, pop, happy, piano and drums, the bpm is 110",
                    dynamic_prompts=False,
                    tooltip=(
                        "English keywords, separated by commas: gender, genre, emotion, instruments, tempo."
                        " Empty: the model's choice."
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
                    ),
                ),
                inp(
                    io.Combo.Input,
                    "output",
                    options=list(RENDERED),
                    default=RENDERED[0],
                    tooltip="mixed: the whole song. vocal: the voice alone. bgm: the accompaniment alone.",
                ),
                reference,
                *download_inputs(),
            ],
            outputs=[
                io.Audio.Output("audio", display_name="audio", tooltip="48 kHz stereo."),
                io.Float.Output("seconds", display_name="seconds", tooltip="Length of the song in seconds."),
                io.String.Output(
                    "formatted", display_name="lyrics", tooltip="The lyrics as the model read them."
                ),
                io.String.Output("report", display_name="report", tooltip="What was mended in the lyrics."),
                io.String.Output("info", display_name="info", tooltip="Seed, settings and advice, in words."),
            ],
            enable_expand=True,
        )

    @classmethod
    def validate_inputs(
        cls, model: str | None = None, lyrics: str | None = None, style: str | None = None
    ) -> bool | str:
        return host.problem(
            (check_expansion,),
            (check_model, model),
            (check_lyrics, lyrics, True),
            (Description.parse, style),
        )

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **others: Any) -> str:
        """State of the model files."""
        return LoadLeVoModel.fingerprint_inputs(model=model, variant=AUTO)

    @classmethod
    def execute(
        cls,
        model: str,
        lyrics: str,
        style: str,
        seed: int,
        duration: float,
        output: str,
        reference: list[Any] | None = None,
        download: str = NEVER,
        licence: str = NOT_ACCEPTED,
    ) -> io.NodeOutput:
        host.check_choice("output", output, RENDERED)
        graph = GraphBuilder()
        loaded = graph.node(
            "SongGenLoadLeVoModel",
            model=model,
            dtype=AUTO,
            variant=AUTO,
            download=download,
            features=_FEATURES[reference is not None],
            licence=licence,
        ).out(0)
        words = graph.node("SongGenLyricsFormatter", lyrics=lyrics, mend=True)
        prompt = {} if reference is None else {"prompt": _prompt(graph, loaded, reference)}
        written = graph.node(
            "SongGenGenerateTokens",
            model=loaded,
            lyrics=words.out(0),
            seed=seed,
            duration=duration,
            output="bgm" if output == "bgm" else "mixed",  # voice and mix are written as the same codes
            description=style,
            **prompt,
        )
        audio = graph.node(
            "SongGenDiffusionRender",
            model=loaded,
            codes=written.out(0),
            seed=seed,
            output=output,
            steps=RenderOptions.num_steps,
            guidance_scale=RenderOptions.guidance_scale,
            **prompt,
        )
        results = audio.out(0), written.out(1), words.out(0), words.out(1), written.out(2)
        return io.NodeOutput(*results, expand=graph.finalize())


def check_expansion() -> None:
    """Raise UserError where ComfyUI fails at every node that is made of others."""
    if args.cache_none and hasattr(caching, "DependencyAwareCache"):
        raise UserError(
            "this ComfyUI cannot run Song (One Node) with --cache-none; start it without, update ComfyUI, or"
            " use the single nodes as in the template text_to_song"
        )


def _prompt(graph: GraphBuilder, model: list[Any], recording: list[Any]) -> list[Any]:
    """The best ten seconds of a recording. A fixed seed: a new song need not encode it again."""
    return graph.node(
        "SongGenAudioPrompt",
        model=model,
        seed=0,
        find_best=True,
        start=0.0,
        seconds=PROMPT_SECONDS,
        audio=recording,
    ).out(0)
