"""Write a corpus: `python -m training.synth --hours 0.1 --seed 1 --out FOLDER`; goes on where it stopped."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from songgen_core.configs import FRAME_RATE
from songgen_core.errors import UserError
from songgen_core.seeds import check_seed
from songgen_core.text.phonetics import Lexicon

from .request import Request
from .score import Score
from .write import corpus, is_written, write_song

Job = tuple[int, Request, Score]


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _write_corpus(options)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _write_corpus(options: argparse.Namespace) -> None:
    seed, folder = check_seed(options.seed), options.out
    lexicon = Lexicon.read(options.lexicon) if options.lexicon else None
    songs = list(corpus(seed, options.hours, lexicon))
    missing = [job for job in songs if not is_written(folder, seed, job[0])]
    with tqdm(total=len(songs), initial=len(songs) - len(missing), unit="song") as bar:
        write = partial(_write, folder, seed)
        if options.workers == 1:
            for _ in map(write, missing):
                bar.update()
        else:
            with ProcessPoolExecutor(options.workers) as pool:
                for _ in pool.map(write, missing, chunksize=4):
                    bar.update()
    hours = sum(score.num_frames for _, _, score in songs) / FRAME_RATE / 3600
    sys.stdout.write(f"{len(songs)} songs, {hours:.2f} hours, in {folder}\n")


def _write(folder: Path, seed: int, job: Job) -> None:
    write_song(folder, seed, *job)


def _parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m training.synth", description=__doc__)
    out.add_argument("--hours", type=_positive, required=True, help="of audio")
    out.add_argument("--seed", type=int, default=0, help="names the corpus (default 0)")
    out.add_argument("--out", type=Path, required=True, help="folder of the files")
    out.add_argument("--lexicon", type=Path, help="a model's lexicon.txt.gz; words are made up without")
    out.add_argument("--workers", type=_count, default=1, help="processes (default 1)")
    return out


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
