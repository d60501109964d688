"""`songgen convert`: a published weight file as a small safetensors file."""

from argparse import Namespace

from .. import __version__
from ..checkpoint.convert import convert
from ..devices import DTYPES
from .show import Console, size_text


def run(args: Namespace) -> int:
    """Convert one file."""
    console = Console(args)
    with console.progress() as on_progress:
        done = convert(
            args.source,
            args.target,
            dtype=DTYPES[args.dtype],
            overwrite=args.overwrite,
            converted_by=f"SongGen {__version__}",
            on_progress=on_progress,
        )
    dropped = f", {done.dropped} unused ones dropped" if done.dropped else ""
    console.say(f"{done.path}: {done.tensors} tensors, {size_text(done.size)}{dropped}")
    result = {"kind": done.kind, "tensors": done.tensors, "dropped": done.dropped, "bytes": done.size}
    console.result({"file": str(done.path), **result})
    return 0
