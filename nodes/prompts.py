"""What steers a song beside words: a recording, or a stored prompt of a genre."""

from typing import Any

from comfy_api.v0_0_2 import io

from ..songgen_core.configs import SAMPLE_RATE
from ..songgen_core.prompts.presets import GENRES
from ..songgen_core.prompts.prompt import PROMPT_SECONDS
from ..songgen_core.prompts.recording import SILENT, Part, PromptOptions, make_prompt, part_of
from ..songgen_core.seeds import MAX_SEED
from ..songgen_core.text.lyrics import detect_language
from . import host
from ._compat import inp, schema
from .sockets import PromptSocket, SongModelSocket, recording_inputs, source_of, to_audio
from .text import bulleted

AUTO = "auto"
LANGUAGES = (AUTO, "zh", "en")
SHORTEST = 0.04  # seconds: one frame
LATEST = 36_000.0


class AudioPrompt(io.ComfyNode):
    """AUDIO -> SONGGEN_PROMPT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenAudioPrompt",
            display_name="Audio Prompt",
            description=(
                "Up to 10 s of a recording steer style and voice of the song; best is its chorus, which is"
                " found by itself. Connect a whole song, whose voice is then separated (needs the package"
                " demucs and its weights), or voice and accompaniment that are apart already."
            ),
            search_aliases=["reference", "style", "clone", "cover", "LeVo"],
            inputs=[
                SongModelSocket.Input("model", tooltip="From Load LeVo Model."),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,  # another prompt after each run is another song
                    tooltip="Noise of the encoding and of the separation; it changes little.",
                ),
                inp(
                    io.Boolean.Input,
                    "find_best",
                    default=True,
                    tooltip="Find the chorus: the part that comes back, is loud and begins something.",
                ),
                inp(
                    io.Float.Input,
                    "start",
                    display_name="start (s)",
                    default=0.0,
                    min=0.0,
                    max=LATEST,
                    step=0.1,
                    round=0.001,
                    tooltip="Where the prompt begins, in seconds; used when find_best is off.",
                ),
                inp(
                    io.Float.Input,
                    "seconds",
                    display_name="length (s)",
                    default=PROMPT_SECONDS,
                    min=SHORTEST,
                    max=PROMPT_SECONDS,
                    step=0.1,
                    round=0.01,
                    tooltip="Length of the prompt; the models were trained with 10 s.",
                ),
                *recording_inputs(),
                inp(
                    io.Boolean.Input,
                    "faithful",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "As the reference implementation does, with its slips: the first seconds, the whole"
                        " recording separated, mono left mono. Slow; leave it off unless you compare."
                    ),
                ),
            ],
            outputs=[
                PromptSocket.Output(
                    "prompt", display_name="prompt", tooltip="For Generate Tokens and Diffusion Render."
                ),
                io.Audio.Output("clip", display_name="clip", tooltip="What the prompt hears, 48 kHz stereo."),
                io.String.Output(
                    "info", display_name="info", tooltip="Where the prompt begins, its length, and warnings."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: host.SongModel,
        seed: int,
        find_best: bool,
        start: float,
        seconds: float,
        audio: dict[str, Any] | None = None,
        vocal: dict[str, Any] | None = None,
        bgm: dict[str, Any] | None = None,
        faithful: bool = False,
    ) -> io.NodeOutput:
        source, notes = source_of(audio, vocal, bgm)
        options = PromptOptions(None if find_best else start, seconds, seed, faithful)
        part, progress = part_of(source, options), host.NodeProgress(cls)
        host.stop_if_cancelled()
        prompt = make_prompt(
            source,
            # The place that was found, so that it is not looked for again.
            PromptOptions(part.start, seconds, seed, faithful),
            separator=model.readers.separator,
            encoders=lambda: model.readers.encoders(progress),
            cache=host.prompt_cache(),
            fingerprint=model.readers.core.fingerprint(),
            on_progress=progress,
            cancelled=host.stop_if_cancelled,
        )
        clip = to_audio(part.mix[None], SAMPLE_RATE)
        return io.NodeOutput(prompt, clip, part_info(part, seconds, find_best and not faithful, notes))


def part_info(part: Part, wanted: float, was_found: bool, notes: list[str]) -> str:
    """What the prompt is made of, one fact a line."""
    how = " (found by find_best)" if was_found else ""
    warnings = [SILENT] if part.is_silent else []
    if part.seconds < wanted - SHORTEST:
        warnings.append(f"the recording ends before the {wanted:g} s that were asked for")
    lines = [f"prompt of {part.seconds:.1f} s, from {part.start:.1f} s of the recording on{how}", *notes]
    return "\n".join([*lines, *bulleted("warnings:", warnings)])


class GenrePrompt(io.ComfyNode):
    """A genre -> SONGGEN_PROMPT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenGenrePrompt",
            display_name="Genre Prompt",
            description=(
                "Takes one of the prompts that the model's publisher stored for a genre, in place of a"
                " recording of your own. It steers Generate Tokens; Diffusion Render needs none of it."
            ),
            search_aliases=["style", "preset", "auto prompt", "LeVo"],
            inputs=[
                SongModelSocket.Input("model", tooltip="From Load LeVo Model."),
                inp(
                    io.Combo.Input,
                    "genre",
                    options=list(GENRES),
                    default=GENRES[-1],
                    tooltip="Genre of the stored prompt. Auto: any of them.",
                ),
                inp(
                    io.Combo.Input,
                    "language",
                    options=list(LANGUAGES),
                    default=AUTO,
                    tooltip="Language of the song that the prompt was taken from. auto: that of the lyrics.",
                ),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed takes another prompt of the genre.",
                ),
                inp(
                    io.String.Input,
                    "lyrics",
                    multiline=True,
                    default="",
                    optional=True,
                    dynamic_prompts=False,
                    tooltip="Only for the language auto: the lyrics that tell it. Empty: en.",
                ),
            ],
            outputs=[
                PromptSocket.Output("prompt", display_name="prompt", tooltip="For Generate Tokens."),
                io.String.Output("info", display_name="info", tooltip="Which prompt was taken, in words."),
            ],
        )

    @classmethod
    def execute(
        cls, model: host.SongModel, genre: str, language: str, seed: int, lyrics: str | None = None
    ) -> io.NodeOutput:
        host.check_choice("genre", genre, GENRES)
        host.check_choice("language", language, LANGUAGES)
        spoken = detect_language(lyrics or "") if language == AUTO else language
        prompt = model.readers.core.preset(genre, spoken, seed)
        return io.NodeOutput(prompt, f"{prompt.about}, seed {seed}")
