"""Every command's options. Nothing heavy is imported here: `songgen --help` answers at once."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, get_args

from .. import __version__
from ..configs import VARIANTS, OutputType

# What the library offers, told here again because asking it would load torch; a test compares.
FORMATS = ("flac", "wav", "wav32", "mp3")
DTYPES = ("float32", "float16", "bfloat16")
OUTPUTS: tuple[str, ...] = get_args(OutputType)
ENGINES = ("auto", "reference")
WEIGHTS = ("native", "int8", "fp8", "int4")
SAMPLING = ("temperature", "top_k", "top_p", "cfg_scale", "repetition_window")

_SING_EXAMPLE = 'songgen sing lyrics.txt -o song.flac --tags "female, pop, piano, the bpm is 110" --seed 1'


class UsageError(Exception):
    """A call that argparse refuses."""


class Interrupted(Exception):
    """Work that was stopped half-way and says how to go on."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the chosen one is in `args.command`."""
    parser = _Parser(
        prog="songgen",
        description="Whole songs with vocals from lyrics and a style.",
        epilog=f"example: {_SING_EXAMPLE}",
    )
    parser.add_argument("--version", action="version", version=f"SongGen {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_sing(commands.add_parser("sing", help="make one song", epilog=f"example: {_SING_EXAMPLE}"))
    _add_batch(commands.add_parser("batch", help="make the songs of a JSONL file; can be resumed"))
    _add_convert(commands.add_parser("convert", help="turn a weight file into a small safetensors file"))
    _add_download(commands.add_parser("download", help="get a published model; can be resumed"))
    _add_encode(commands.add_parser("encode", help="turn a recording into a file of codes"))
    _add_decode(commands.add_parser("decode", help="turn a file of codes into audio"))
    _add_check(commands.add_parser("check-model", help="measure what a model does of what it is asked"))
    _add_info(commands.add_parser("info", help="show this machine, the models found, or what a file is"))
    return parser


def _add_sing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lyrics", metavar="LYRICS", help="text file with lyrics, or - for standard input")
    parser.add_argument(
        "-o", "--file", type=Path, required=True, metavar="FILE", help="audio file to write: .flac .wav .mp3"
    )
    parser.add_argument(
        "--tags", default="", metavar="TEXT", help='style, such as "female, pop, piano, the bpm is 110"'
    )
    _add_mend(parser)
    _whole(parser, "--seed", None, "same seed, same song (default: a random one, which is shown)")
    _whole(parser, "--candidates", 1, "songs in one go, seeds in a row: song.1.flac, song.2.flac, ...")
    parser.add_argument(
        "--preview", type=Path, metavar="FILE", help="a WAV file to listen to while the song is being made"
    )
    _add_prompt_options(parser)
    _add_song_options(parser)
    _add_model_options(parser)
    _add_memory(parser)
    _add_report_options(parser)


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "songs",
        type=Path,
        metavar="SONGS.jsonl",
        help="one song per line: idx, gt_lyric, ...",
    )
    parser.add_argument(
        "-d", "--folder", type=Path, required=True, metavar="FOLDER", help="where songs and results.jsonl go"
    )
    _add_mend(parser)
    _whole(parser, "--seed", 0, "from which songs without a seed get their own, by idx (default: 0)")
    _add_song_options(parser)
    _add_model_options(parser)
    _add_memory(parser)
    _add_report_options(parser)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SRC", help="song model, two-track codec or VAE file")
    parser.add_argument("target", type=Path, metavar="DST", help="folder, or a name ending in .safetensors")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float16", help="of a song model (default: float16)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _add_report_options(parser)


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", nargs="?", metavar="VARIANT", help=f"{', '.join(VARIANTS)}; see --list")
    parser.add_argument(
        "--features",
        default="text",
        metavar="LIST",
        help="text, prompts (recordings as a prompt), genres (stored prompts), with commas (default: text)",
    )
    parser.add_argument(
        "--list", action="store_true", help="show what can be downloaded, and how large it is"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what is missing, and download nothing")
    parser.add_argument(
        "--accept-licence", action="store_true", help="accept the weights' licence, which is asked for once"
    )
    _add_models_dir(parser, "where models go, and where else they lie; may be repeated")
    _add_report_options(parser)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command="check")  # its module
    parser.add_argument("name", nargs="?", metavar="NAME", help="the model; the same as --model")
    _whole(parser, "--limit", None, "only the first N of the 64 requests, for a quick look")
    _whole(parser, "--seed", 0, "added to the seed of each request (default: 0)")
    parser.add_argument(
        "--lexicon", type=Path, metavar="FILE", help="tells the vowels of lyrics (default: the model's own)"
    )
    _add_rendering_options(parser)
    _add_model_options(parser)
    _add_memory(parser)
    _add_report_options(parser)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", metavar="PATH_OR_NAME", help="a file, a model folder or a name")
    _real(parser, "--plan", "how the model PATH_OR_NAME or VARIANT runs on a card of X GB: 6, 8, 12, ...")
    _real(parser, "--duration", "seconds of song that --plan is for (default: the model's limit)")
    _add_models_dir(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(quiet=False)


def _add_mend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mend", action="store_true", help="read lyrics of any form (Suno, LRC, plain, ...) and tell changes"
    )


def _add_prompt_options(parser: argparse.ArgumentParser) -> None:
    prompt = parser.add_argument_group("prompt (a recording or a genre steers style and voice)")
    prompt.add_argument("--prompt", type=Path, metavar="FILE", help="a song; its most chorus-like 10 s count")
    prompt.add_argument("--prompt-vocal", type=Path, metavar="FILE", help="its voice alone, if you have it")
    prompt.add_argument("--prompt-bgm", type=Path, metavar="FILE", help="its accompaniment alone")
    _real(prompt, "--prompt-start", "second at which the prompt begins (default: it is looked for)")
    _real(prompt, "--prompt-seconds", "length of the prompt (default: 10, the most)")
    prompt.add_argument(
        "--faithful-prompt", action="store_true", help="first 10 s, prepared as the reference does"
    )
    prompt.add_argument("--genre", metavar="NAME", help="a stored prompt: Pop, Rock, Jazz, ... or Auto")
    prompt.add_argument("--language", choices=("zh", "en"), help="of the stored prompt (default: lyrics)")


def _add_encode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("song", type=Path, nargs="?", metavar="SONG", help="a recording of any length")
    parser.add_argument(
        "-o", "--file", type=Path, required=True, metavar="FILE", help=".safetensors to write"
    )
    parser.add_argument("--vocal", type=Path, metavar="FILE", help="its voice alone: nothing is separated")
    parser.add_argument("--bgm", type=Path, metavar="FILE", help="its accompaniment alone")
    _whole(parser, "--seed", 0, "of the separation (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _add_model_choice(parser)
    _add_report_options(parser)


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("codes", type=Path, metavar="CODES", help="a file that 'songgen encode' wrote")
    parser.add_argument(
        "-o", "--file", type=Path, required=True, metavar="FILE", help="audio file to write: .flac .wav .mp3"
    )
    _whole(parser, "--seed", 0, "of details of the sound (default: 0)")
    _add_track_options(parser)
    _add_rendering_options(parser)
    _add_renderer_options(parser)
    _add_report_options(parser)


def _add_song_options(parser: argparse.ArgumentParser) -> None:
    song = parser.add_argument_group("song")
    _real(song, "--duration", "longest song in seconds (default: the model's limit)")
    _add_track_options(song)
    sampling = parser.add_argument_group("sampling (defaults suit the model)")
    _real(sampling, "--temperature", "0 always takes the most likely code")
    _whole(sampling, "--top-k", None, "candidates of the mixed stream, 0 is all")
    _real(sampling, "--top-p", "share of probability to draw from, 0 is off")
    _real(sampling, "--cfg-scale", "strength of guidance by lyrics and style")
    _whole(sampling, "--repetition-window", None, "frames in which repeated codes are penalised, 0 is off")
    _add_rendering_options(parser)


def _add_track_options(song: Any) -> None:
    song.add_argument(
        "--output", choices=OUTPUTS, default="mixed", help="default: mixed; separate: all three"
    )
    song.add_argument("--format", choices=FORMATS, help="default: by the extension; wav32 is float")
    song.add_argument("--overwrite", action="store_true", help="replace existing files")


def _add_rendering_options(parser: argparse.ArgumentParser) -> None:
    rendering = parser.add_argument_group("rendering")
    _whole(rendering, "--steps", 10, "Euler steps per window (default: 10)")
    _real(rendering, "--guidance-scale", "strength of guidance (default: 1.5)", 1.5)


def _add_model_choice(parser: argparse.ArgumentParser) -> Any:
    """Which model, and where it runs; returns the group."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME",
        help="name, folder or file (default: the only one found, else mini, which comes with SongGen)",
    )
    _add_models_dir(model)
    model.add_argument(
        "--variant", help=f"published sizes, where no config.yaml lies there: {', '.join(VARIANTS)}"
    )
    model.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    model.add_argument("--low-memory", action="store_true", help="one network on the device at a time")
    return model


def _add_renderer_options(parser: argparse.ArgumentParser) -> Any:
    """For commands that render; returns the group."""
    model = _add_model_choice(parser)
    model.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="default: auto")
    model.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="auto: the fast one where it can run (default); reference: slower, to compare",
    )
    return model


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """For commands that write and render songs."""
    model = _add_renderer_options(parser)
    model.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="layers of the language model: native (as --dtype, default), or smaller and quicker",
    )


def _add_memory(parser: argparse.ArgumentParser) -> None:
    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--memory",
        type=_number(float, "a number"),
        metavar="GB",
        help="keep within so much of the card (on a CPU: of RAM): a plan is made, shown and kept; it chooses"
        " --weights and --low-memory unless they are given",
    )


def _add_models_dir(parser: Any, text: str = "where models lie; may be repeated") -> None:
    parser.add_argument(
        "--models-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help=f"{text} (default: $SONGGEN_MODELS, else ./models)",
    )


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary, only warnings")


def _whole(parser: Any, name: str, default: int | None, text: str) -> None:
    parser.add_argument(name, type=_number(int, "a whole number"), default=default, metavar="N", help=text)


def _real(parser: Any, name: str, text: str, default: float | None = None) -> None:
    parser.add_argument(name, type=_number(float, "a number"), default=default, metavar="X", help=text)


def _number(kind: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    """An argument type whose error says what to give."""

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}; give {expected}") from None

    return read
