"""Train a small song model from nothing: `python -m training all --out FOLDER`.

Each stage goes on where it was stopped, and reads what the stages before it left in the same folder:

    vae, mixed_encoder, dual_encoder, renderer     the codec, from songs with sound
    pretrain, extend, dpo                          the language model, from scores alone
    export                                         the checkpoint, in the layout of the published ones
    all                                            one after the other
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

from .runs import Run
from .settings import STAGES, read_settings

_MINI = Path(__file__).with_name("mini.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=(*STAGES, "export", "all"))
    parser.add_argument("--config", type=Path, default=_MINI, help="sizes and schedules (default: mini.yaml)")
    parser.add_argument("--out", type=Path, required=True, help="folder of what each stage leaves")
    parser.add_argument("--lexicon", type=Path, required=True, help="what training.lexicon made")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; two stages side by side with one each are quickest"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    run = Run(read_settings(args.config), args.out, args.lexicon)
    for stage in (*STAGES, "export") if args.stage == "all" else (args.stage,):
        figures = run.stage(stage)
        sys.stdout.write(json.dumps({"stage": stage, **figures}) + "\n")


if __name__ == "__main__":
    main()
