"""Which model a command uses, and what can be known of it before its weights are read."""

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.layout import MINI, find_model, list_models
from ..checkpoint.load_model import language_model_config
from ..configs import LeLMConfig
from ..devices import choose_device, choose_dtype
from ..errors import CheckpointError, UserError
from ..pipeline import SongPipeline
from ..progress import IsCancelled, OnProgress
from ..prompts.readers import PromptReaders
from ..selftest import LM_CONFIG, NOTICE, SELFTEST
from ..text.bpe import QWEN2_FOLDER

MODELS_VARIABLE = "SONGGEN_MODELS"
MINI_NOTE = (
    "no model is installed: mini sings, the small one that comes with SongGen; 'songgen download' gets others"
)


@dataclass(frozen=True)
class ChosenModel:
    """A model whose files are all there; `config` is that of its language model."""

    name: str
    roots: tuple[Path, ...]
    variant: str | None
    device: str
    dtype: str
    low_memory: bool
    engine: str
    weights: str | None
    memory: float | None
    config: LeLMConfig
    is_fallback: bool

    @property
    def advice(self) -> str | None:
        """What to say to somebody who named no model and has none."""
        return MINI_NOTE if self.is_fallback else None

    @property
    def notice(self) -> str | None:
        """What must be said of everything that the model makes."""
        return NOTICE if self.name == SELFTEST else None

    def readers(self) -> PromptReaders:
        """What reads prompts; nothing is loaded yet."""
        files = None if self.name == SELFTEST else find_model(self.name, self.roots, self.variant)
        return PromptReaders(files)

    def load(
        self,
        on_progress: OnProgress,
        cancelled: IsCancelled,
        *,
        longest: float | None = None,
        songs: int = 1,
    ) -> SongPipeline:
        """To make `songs` in one go, of up to `longest` seconds (None: the model's limit)."""
        # Songs side by side need their memory while they are written: the renderer comes after them.
        take_turns = self.memory is not None and songs > 1
        return SongPipeline.from_pretrained(
            self.name,
            roots=self.roots,
            variant=self.variant,
            device=self.device,
            dtype=self.dtype,
            low_memory=self.low_memory or take_turns,
            engine=self.engine,
            weights=self.weights,
            memory=self.memory,
            longest=longest,
            on_progress=on_progress,
            cancelled=cancelled,
        )


def choose_model(args: Namespace) -> ChosenModel:
    """The model that the options name, else the only one there is, else the one that comes with SongGen.

    Raises UserError, CheckpointError.
    """
    choose_dtype(choose_device(args.device), args.dtype)
    roots = model_folders(args.models_dir)
    name = args.model or the_only_model(roots, is_asked_for=bool(args.models_dir))
    if name == SELFTEST:
        if args.variant is not None:
            raise UserError(f"--variant {args.variant} does not go with the self-test model; leave it out")
        config, is_fallback = LM_CONFIG, False
    else:
        files = find_model(name, roots, args.variant)
        is_fallback = args.model is None and files.is_mini
        config = language_model_config(files, files.tokenizer or QWEN2_FOLDER)
    return ChosenModel(
        name,
        tuple(roots),
        args.variant,
        args.device,
        args.dtype,
        args.low_memory,
        args.engine,
        args.weights,
        args.memory,
        config,
        is_fallback,
    )


def model_folders(given: list[Path] | None) -> list[Path]:
    """Folders that hold models: as given, else $SONGGEN_MODELS, else ./models. Raises UserError."""
    if given:
        for folder in given:
            if not folder.is_dir():
                raise UserError(f"--models-dir {folder} is no folder; check the spelling")
        return given
    listed = os.environ.get(MODELS_VARIABLE, "")
    return [Path(p) for p in listed.split(os.pathsep) if p] or [Path("models")]


def the_only_model(roots: list[Path], is_asked_for: bool) -> str:
    """The name of the model under `roots`; "mini" where none is and none `is_asked_for` there.

    Raises CheckpointError.
    """
    models, looked = list_models(roots), ", ".join(map(str, roots))
    if len(models) == 1:
        return next(iter(models))
    if models:
        raise CheckpointError(f"several models lie in {looked}; choose one with --model: {', '.join(models)}")
    if is_asked_for:
        raise CheckpointError(
            f"no song model lies in {looked}; put a folder with model.pt and config.yaml there, or say where"
            f" it is with --model or --models-dir (--model {MINI} is the small one that comes with SongGen)"
        )
    return MINI
