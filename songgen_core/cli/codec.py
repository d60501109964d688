"""Model files for commands that write no songs: only codec and VAE are needed, and loaded."""

from argparse import Namespace
from dataclasses import dataclass

from ..checkpoint.layout import SharedFiles, find_codec, find_model
from ..checkpoint.load_model import load_codec
from ..codec import SongCodec, SongReader
from ..devices import choose_device, choose_dtype
from ..engine import load_engine
from ..errors import UserError
from ..progress import IsCancelled, OnProgress
from ..prompts.readers import PromptReaders
from ..selftest import NOTICE, SELFTEST, selftest_networks
from .model import model_folders


@dataclass(frozen=True)
class ChosenCodec:
    """Files of a codec, all there; None is that of the self-test model."""

    files: SharedFiles | None
    args: Namespace
    readers: PromptReaders  # of these files

    @property
    def notice(self) -> str | None:
        return NOTICE if self.files is None else None

    @property
    def name(self) -> str:
        return SELFTEST if self.files is None else str(self.files.codec)

    def reader(self) -> SongReader:
        """For recordings; renderer and VAE decoder are not loaded."""
        device = choose_device(self.args.device)
        return SongReader(self.readers, device=device, low_memory=self.args.low_memory)

    def load(self, on_progress: OnProgress, cancelled: IsCancelled) -> SongCodec:
        """Raises CheckpointError, Cancelled."""
        device = choose_device(self.args.device)
        if self.files is None:
            _, _, renderer, vae = selftest_networks()
        else:
            dtype = choose_dtype(device, self.args.dtype)
            renderer, vae = load_codec(self.files, dtype, on_progress, cancelled)
        return SongCodec(
            renderer,
            vae,
            self.readers,
            device=device,
            low_memory=self.args.low_memory,
            render=load_engine(self.args.engine).render_audio,
        )


def choose_codec(args: Namespace) -> ChosenCodec:
    """The codec beside the model that the options name, else the one found.

    Raises UserError, CheckpointError.
    """
    choose_device(args.device)
    if args.variant is not None:
        raise UserError("--variant is of no use here: all song models share one codec; leave it out")
    if args.model == SELFTEST:
        return ChosenCodec(None, args, PromptReaders(None))
    roots = model_folders(args.models_dir)
    files = find_model(args.model, roots) if args.model else find_codec(roots)
    return ChosenCodec(files, args, PromptReaders(files))
