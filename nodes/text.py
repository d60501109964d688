"""Lyrics and style: from what people type to what the model reads."""

from collections.abc import Iterable

from comfy_api.v0_0_2 import io

from ..songgen_core import LyricsError
from ..songgen_core.text.doctor import MendedLyrics, mend_lyrics
from ..songgen_core.text.lyrics import STRUCTURE_TAGS, Section, Song, estimate_seconds
from ..songgen_core.text.tags import BPM_MAX, BPM_MIN, TAG_VOCABULARY, Description
from . import host
from ._compat import inp, schema

EXAMPLE_LYRICS = """[intro-short]

[verse]
Morning light across the floor
Footsteps fading by the door

[chorus]
Sing it out into the day
Let the river find its way

[outro-short]"""
ANY = "any"  # first choice of every style combo: not said, the model chooses


def check_lyrics(lyrics: str, mend: bool = False) -> None:
    """Raise LyricsError for lyrics that cannot be sung, once they are mended where that is asked for."""
    if not mend:
        Song.parse(lyrics).check()
    elif problems := mend_lyrics(lyrics).problems:
        raise LyricsError(str(problems[0]))


def bulleted(title: str, lines: Iterable[str]) -> list[str]:
    """Lines under a title; nothing where there are none."""
    found = [f"- {line}" for line in lines]
    return [title, *found] if found else []


class LyricsFormatter(io.ComfyNode):
    """Typed lyrics -> the one-line form of the model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        lyrics = inp(
            io.String.Input,
            "lyrics",
            multiline=True,
            default=EXAMPLE_LYRICS,
            dynamic_prompts=False,
            tooltip=(
                "Sections with a tag such as [verse] or [chorus] above them, one line of song per"
                " line. The one-line form with ' ; ' between sections is read as well."
            ),
        )
        lyrics.extra_dict = {"structure_tags": STRUCTURE_TAGS}  # web/js/pickers.js offers them
        return schema(
            node_id="SongGenLyricsFormatter",
            display_name="Lyrics Formatter",
            description=(
                "Turns lyrics as people have them into the form that the model reads, a tag in brackets above"
                " each section, and says what it changed and what is still wrong. Tags:"
                f" {', '.join(STRUCTURE_TAGS)}."
            ),
            search_aliases=["song text", "verse", "chorus"],
            inputs=[
                lyrics,
                inp(
                    io.Boolean.Input,
                    "mend",
                    default=True,
                    optional=True,
                    tooltip=(
                        "Read lyrics of any form: headings such as [Verse 1] or Chorus:, none at all, LRC,"
                        " chords, full-width signs, (x2). The report says what was changed. Off: only the"
                        " model's own tags are read."
                    ),
                ),
            ],
            outputs=[
                io.String.Output(
                    "formatted", display_name="lyrics", tooltip="Lyrics in the form of the model."
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="Sections, expected length and advice."
                ),
                io.Float.Output(
                    "seconds",
                    display_name="seconds",
                    tooltip="Expected length of the song, by rule of thumb.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, lyrics: str | None = None, mend: bool | None = True) -> bool | str:
        return host.problem((check_lyrics, lyrics, mend))

    @classmethod
    def execute(cls, lyrics: str, mend: bool = True) -> io.NodeOutput:
        mended = mend_lyrics(lyrics) if mend else MendedLyrics(lyrics)
        if mended.problems:
            raise LyricsError(str(mended.problems[0]))
        song = Song.parse(mended.text)
        seconds = estimate_seconds(song)
        report = [
            *bulleted(f"sections, about {seconds:.0f} s in all:", map(_summary, song.sections)),
            *bulleted("not sung; put it into the style:", mended.style_hints),
            *bulleted("mended:", map(str, mended.changes)),
            *bulleted("advice:", song.warnings()),
        ]
        return io.NodeOutput(song.format(), "\n".join(report), seconds)


def _summary(section: Section) -> str:
    number = len(section.lines)
    return f"[{section.tag}]" + (f" {number} line{'s' * (number != 1)}" if section.is_vocal else "")


class DescriptionTags(io.ComfyNode):
    """Choices -> the description of a style."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenDescriptionTags",
            display_name="Description Tags",
            description=(
                "Builds the description of a style from keywords that the model knows. Nothing is compulsory:"
                " what is left at 'any' is the model's choice."
            ),
            search_aliases=["style", "genre", "mood", "tags", "keywords", "description"],
            inputs=[
                _tag_input("gender", "gender", "Voice of the singer."),
                _tag_input("genre", "genre", "Musical genre."),
                _tag_input("timbre", "timbre", "Colour of the voice and the sound."),
                _tag_input("emotion", "emotion", "Mood of the song."),
                _tag_input("instrument", "instruments", "Leading instrument; add more of them under extra."),
                inp(
                    io.Int.Input,
                    "bpm",
                    default=0,
                    min=0,
                    max=BPM_MAX,
                    tooltip=f"Tempo in beats per minute, {BPM_MIN} to {BPM_MAX}; 0 leaves it to the model.",
                ),
                inp(
                    io.String.Input,
                    "extra",
                    default="",
                    optional=True,
                    dynamic_prompts=False,
                    placeholder="violin, strings, nostalgic",
                    tooltip=(
                        "More keywords, separated by commas. English, or the usual Chinese ones; known"
                        " keywords go where they belong, all others are passed on as typed."
                    ),
                ),
            ],
            outputs=[
                io.String.Output(
                    "description", display_name="description", tooltip="Description in the form of the model."
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Keywords that were converted or may not be understood.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, bpm: int | None = 0, extra: str | None = "") -> bool | str:
        return host.problem((_description, [], bpm, extra))

    @classmethod
    def execute(
        cls,
        gender: str = ANY,
        genre: str = ANY,
        timbre: str = ANY,
        emotion: str = ANY,
        instrument: str = ANY,
        bpm: int = 0,
        extra: str = "",
    ) -> io.NodeOutput:
        chosen = {
            "gender": gender,
            "genre": genre,
            "timbre": timbre,
            "emotion": emotion,
            "instruments": instrument,
        }
        words = [host.check_choice(n, v, (ANY, *TAG_VOCABULARY[n])) for n, v in chosen.items()]
        described = _description([w for w in words if w != ANY], bpm, extra)
        return io.NodeOutput(described.format(), "\n".join(described.warnings()))


def _description(words: list[str], bpm: int, extra: str | None) -> Description:
    tempo = [f"the bpm is {bpm}"] if bpm else []
    return Description.parse(", ".join([*words, extra or "", *tempo]))


def _tag_input(name: str, dimension: str, tooltip: str) -> io.Input:
    options = [ANY, *TAG_VOCABULARY[dimension]]
    return inp(io.Combo.Input, name, options=options, default=ANY, tooltip=f"{tooltip} any: not said.")
