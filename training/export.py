"""The checkpoint: a folder with everything that singing needs, in the layout of the published models."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from safetensors.torch import save
from torch import nn

from songgen_core.checkpoint.loader import State
from songgen_core.models.codec_encoder import CodecEncoder
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import LeLM
from songgen_core.models.oobleck import OobleckVAE
from songgen_core.text.phonetics import LEXICON_NAME

from .published import dual_file, dual_notes, lm_file, mixed_file, settings_file, vae_file

# Names that `songgen_core.checkpoint.layout` looks at first for what they are.
_LM, _DUAL, _MIXED, _VAE = (f"{stem}.safetensors" for stem in ("model", "septoken", "1rvq", "vae"))
_PROMPTS = "auto_prompt.pt"
CARD = "README.md"


@dataclass(frozen=True)
class Networks:
    """What the stages left, with ordinary tables."""

    lm: LeLM
    renderer: FlowRenderer
    mixed_encoder: CodecEncoder
    dual_encoder: CodecEncoder
    vae: OobleckVAE

    def by_name(self) -> dict[str, nn.Module]:
        return dict(vars(self))


def write_checkpoint(
    folder: Path,
    networks: Networks,
    lexicon: Path,
    write_prompts: Callable[[Path], None],
    make_card: Callable[[Path], str],
) -> None:
    """Write `folder`, all of it or nothing; one of that name is replaced.

    `write_prompts` writes the file of stored prompts. `make_card` is asked for the model card when all other
    files lie in the folder that it gets.

    Raises ValueError where a network does not fit the layout.
    """
    with _whole_folder(folder) as hidden:
        settings = yaml.safe_dump(settings_file(networks.lm.config), sort_keys=False)
        (hidden / "config.yaml").write_text(settings, encoding="utf-8")
        shutil.copyfile(lexicon, hidden / LEXICON_NAME)
        _save(hidden / _LM, lm_file(networks.lm))
        notes = dual_notes(networks.renderer.config)
        _save(hidden / _DUAL, dual_file(networks.renderer, networks.dual_encoder), notes)
        _save(hidden / _MIXED, mixed_file(networks.mixed_encoder))
        _save(hidden / _VAE, vae_file(networks.vae))
        write_prompts(hidden / _PROMPTS)
        (hidden / CARD).write_text(make_card(hidden), encoding="utf-8")


def hashes(folder: Path) -> dict[str, tuple[int, str]]:
    """Bytes and SHA-256 of all files but the card, by name."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != CARD}
    return {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}


def _save(path: Path, state: State, notes: Mapping[str, str] | None = None) -> None:
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    # Not save_file: what that writes is readable by its owner only.
    path.write_bytes(save(whole, {"format": "pt", **(notes or {})}))


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` that takes its place if all goes well."""
    hidden, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    try:
        yield hidden
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        hidden.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
