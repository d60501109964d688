"""`songgen decode`: a file of codes to audio."""

import time
from argparse import Namespace

from .. import __version__
from ..codec import RenderOptions
from ..codes_file import load_codes
from ..configs import FRAME_RATE
from ..seeds import check_seed
from .codec import choose_codec
from .show import Console, duration_text
from .song import check_target, memory_advice, save_tracks, targets_of
from .stopping import ctrl_c


def run(args: Namespace) -> int:
    """Check everything, load the networks, render."""
    console = Console(args)
    options = RenderOptions(args.steps, args.guidance_scale)
    seed = check_seed(args.seed)
    codes, _ = load_codes(args.codes)
    targets = targets_of(args.file, args.output)
    for target in targets.values():
        check_target(target, args.format, args.overwrite)
    chosen = choose_codec(args)
    tags = {"title": args.file.stem, "comment": f"seed={seed}", "encoded_by": f"SongGen {__version__}"}
    began, audio = time.perf_counter(), {}
    with (
        memory_advice(args.device, "use --low-memory or --dtype float16"),
        console.library_warnings(),
        ctrl_c() as cancelled,
        console.progress() as on_progress,
    ):
        codec = chosen.load(on_progress, cancelled)
        for output in targets:
            audio[output] = codec.render(
                codes,
                seed=seed,
                output=output,
                rendering=options,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        saved = save_tracks(
            targets,
            audio,
            codec.vae.config.sample_rate,
            args.format,
            tags,
            on_progress=on_progress,
            cancelled=cancelled,
        )
    if chosen.notice:
        console.warn(chosen.notice)
    elapsed, seconds = time.perf_counter() - began, codes.shape[-1] / FRAME_RATE
    for track in saved.values():
        console.say(f"{track.path}: {track.seconds:.1f} s")
    console.say(f"made in {duration_text(elapsed)} on {codec.device}")
    console.result(
        {
            "files": {name: str(track.path) for name, track in saved.items()},
            "seconds": round(seconds, 3),
            "peak": round(max(track.peak for track in saved.values()), 4),
            "elapsed_seconds": round(elapsed, 2),
            "warnings": console.warnings,
        }
    )
    return 0
