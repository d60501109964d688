"""A whole song without ComfyUI: python samples/generate_song.py MODEL LYRICS.txt song.flac

MODEL is the folder of a song model, or "mini", the small one that comes with the package.
"""

import sys
from pathlib import Path

from songgen_core import Progress, SongPipeline
from songgen_core.audio.files import save_audio


def show(progress: Progress) -> None:
    print(f"\r{progress.stage}: {progress.done} of {progress.total}", end="", file=sys.stderr)


def main(model: str, lyrics: str, target: str) -> None:
    pipeline = SongPipeline.from_pretrained(model)
    text = Path(lyrics).read_text(encoding="utf-8")
    song = pipeline.generate(
        text, "female, pop, piano, the bpm is 110", seed=1, duration=30, on_progress=show
    )
    saved = save_audio(target, song.audio["mixed"], song.sample_rate, tags={"lyrics": text})
    print(f"\n{saved.path}: {saved.seconds:.1f} s, peak {saved.peak:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
