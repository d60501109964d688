"""`songgen encode`: a recording to a file of codes."""

import time
from argparse import Namespace
from pathlib import Path

from .. import __version__
from ..codes_file import SUFFIX, save_codes
from ..configs import FRAME_RATE
from ..errors import UserError
from ..seeds import check_seed
from .codec import choose_codec
from .prompt import check_recording_networks, source_of
from .show import Console, duration_text
from .song import check_place, memory_advice
from .stopping import ctrl_c


def run(args: Namespace) -> int:
    """Read everything, load the networks, encode."""
    console = Console(args)
    check_seed(args.seed)
    _check_target(args.file, args.overwrite)
    named = {"song": args.song, "vocal": args.vocal, "bgm": args.bgm}
    files = {name: path for name, path in named.items() if path is not None}
    if not files:
        raise UserError("no recording is named; give a song, or --vocal or --bgm with its stems")
    chosen = choose_codec(args)
    check_recording_networks(chosen.readers, files)
    source = source_of(files)
    began = time.perf_counter()
    with (
        memory_advice(args.device, "use --low-memory, or encode the recording in parts"),
        console.library_warnings(),
        ctrl_c() as cancelled,
        console.progress() as on_progress,
    ):
        reader = chosen.reader()
        codes = reader.encode(source, seed=args.seed, on_progress=on_progress, cancelled=cancelled)
    if chosen.notice:
        console.warn(chosen.notice)
    notes = {name: path.name for name, path in files.items()}
    notes |= {"codec": Path(chosen.name).name, "written_by": f"SongGen {__version__}"}
    saved, seconds = save_codes(args.file, codes, notes), codes.shape[-1] / FRAME_RATE
    elapsed = time.perf_counter() - began
    console.say(
        f"{saved}: {seconds:.1f} s, {codes.shape[-1]} frames; hear it with: songgen decode {saved.name}"
    )
    console.say(f"made in {duration_text(elapsed)} on {reader.device}")
    console.result(
        {
            "file": str(saved),
            "seconds": round(seconds, 3),
            "frames": codes.shape[-1],
            "elapsed_seconds": round(elapsed, 2),
            "warnings": console.warnings,
        }
    )
    return 0


def _check_target(path: Path, overwrite: bool) -> None:
    """Raises UserError unless `path` can be written."""
    if path.suffix != SUFFIX:
        raise UserError(f"{path.name}: a file of codes must end in {SUFFIX}; rename it")
    check_place(path, overwrite)
