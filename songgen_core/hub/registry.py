"""What is published where: repository, revision, size and hash of every file, and what needs which.

`override.load_registry` applies what the user wants otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ..checkpoint.layout import Kind, SharedKind
from ..configs import VARIANTS
from ..errors import UserError
from .licence import LICENCE_ID

REGISTRY_NAME = "registry.json"

FEATURES: dict[str, tuple[SharedKind, ...]] = {
    "text": ("codec", "vae"),
    "prompts": ("mixed_codec", "separator"),
    "genres": ("presets",),
}


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository, and its place under the models folder (`target`, with slashes).

    `bytes` and `sha256` are None where nobody published them; `about_bytes` is then the rough size. `kind`
    is what the file holds, None for anything but weights.
    """

    repo: str
    revision: str
    path: str
    target: str
    bytes: int | None = None
    sha256: str | None = None
    repo_type: Literal["model", "space"] = "model"
    about_bytes: int = 0
    kind: Kind | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.target).name

    @property
    def size(self) -> int:
        """Bytes, rough where unpublished."""
        return self.about_bytes if self.bytes is None else self.bytes

    @property
    def source(self) -> str:
        """For messages: `owner/name: path`."""
        return f"{'Space ' if self.repo_type == 'space' else ''}{self.repo}: {self.path}"


@dataclass(frozen=True)
class Release:
    """A song model that can be downloaded; None is what an override did not tell.

    `memory_gb` is what upstream asks of the GPU in GB, `memory_gb_with_prompt` with a prompt recording.
    """

    name: str
    files: tuple[RemoteFile, ...]
    languages: tuple[str, ...] = ()
    max_seconds: float | None = None
    memory_gb: float | None = None
    memory_gb_with_prompt: float | None = None
    licence: str = LICENCE_ID

    @property
    def weights(self) -> RemoteFile:
        return next(file for file in self.files if file.kind == "lm")


@dataclass(frozen=True)
class Registry:
    """All that can be downloaded; `source` is the file that overrode some of it."""

    releases: Mapping[str, Release]
    shared: Mapping[SharedKind, RemoteFile]
    source: Path | None = None

    def release(self, name: str) -> Release:
        """Raises UserError for an unknown name."""
        if name not in self.releases:
            raise UserError(
                f"variant '{name}' is unknown; choose one of {', '.join(self.releases)}, or add it to"
                f" {REGISTRY_NAME} in the models folder"
            )
        return self.releases[name]

    def shared_files(self, features: Iterable[str]) -> dict[SharedKind, RemoteFile]:
        """The shared files that `features` need; those of "text" always. Raises UserError."""
        wanted = ["text", *features]
        for feature in wanted:
            if feature not in FEATURES:
                raise UserError(f"feature '{feature}' is unknown; choose from {', '.join(FEATURES)}")
        return {
            kind: self.shared[kind] for feature in FEATURES if feature in wanted for kind in FEATURES[feature]
        }

    def download_bytes(self, name: str, features: Iterable[str] = ()) -> int:
        """Bytes of everything that a variant needs, rough where sizes are unpublished. Raises UserError."""
        files = [*self.release(name).files, *self.shared_files(features).values()]
        return sum(file.size for file in files)


@dataclass(frozen=True)
class _Published:
    """What the table says of a variant beyond configs.VARIANTS."""

    memory_gb: tuple[int, int]  # without, with a prompt recording
    revision: str = "main"
    config: tuple[int | None, str | None] = (None, None)  # bytes, SHA-256
    weights_sha256: str | None = None


_PUBLISHED: dict[str, _Published] = {
    "base": _Published((10, 16)),
    "base-new": _Published((10, 16)),
    "base-full": _Published((12, 18)),
    "large": _Published((22, 28)),
    "v2-medium": _Published(
        (12, 18),
        "7d91660ebfa041e29bace194f5631e775796f600",
        (3351, "9b1e1cb79b9824816e9f119e1d3e1c3dbb91265121fdd4219667f8e0158a563f"),
        "4ef2be41f6d838824f5432491408f68d9ffbeda3b1349e1208f9cdfcc64445b1",
    ),
    "v2-large": _Published(
        (22, 28),
        "115805364ad74479fb3764fe65970c92faeb1a5a",
        (3352, "14a991bd7342b9dde348e6324afd44b5c6ecb1db8d0ed4d2dbe666b220b04c59"),
        "dc763aa9a76a22a87597c2faf9a51c24d13349ac754699b37e9068b483639def",
    ),
}
_ABOUT_CONFIG = 3_400  # bytes


def _release(name: str, published: _Published) -> Release:
    variant, repo = VARIANTS[name], f"lglg666/SongGeneration-{name}"
    folder, sha256 = folder_of(name), published.weights_sha256
    config = RemoteFile(
        repo,
        published.revision,
        "config.yaml",
        f"{folder}/config.yaml",
        *published.config,
        about_bytes=_ABOUT_CONFIG,
    )
    weights = RemoteFile(
        repo,
        published.revision,
        "model.pt",
        f"{folder}/model.pt",
        variant.model_bytes if sha256 else None,
        sha256,
        about_bytes=variant.model_bytes,
        kind="lm",
    )
    without_prompt, with_prompt = published.memory_gb
    return Release(
        name, (config, weights), variant.languages, variant.lm.max_duration, without_prompt, with_prompt
    )


def folder_of(name: str) -> str:
    """Named as upstream does, so that every tool of this family finds it."""
    return f"songgeneration_{name.replace('-', '_')}"


def _runtime(
    kind: SharedKind, path: str, about: int, size: int | None = None, sha256: str | None = None
) -> RemoteFile:
    repo, revision = "lglg666/SongGeneration-Runtime", "cc258cc694a63114c61684cc26d0583b8ad777d0"
    return RemoteFile(repo, revision, path, path, size, sha256, about_bytes=about, kind=kind)


_SHARED: dict[SharedKind, RemoteFile] = {
    "codec": _runtime(
        "codec",
        "ckpt/model_septoken/model_2.safetensors",
        4_808_167_708,
        4_808_167_708,
        "430b7c1c245722fbe3893cd621b3d4a90076404596e9fb1ce987a4a0f2a4fc6f",
    ),
    "mixed_codec": _runtime("mixed_codec", "ckpt/model_1rvq/model_2_fixed.safetensors", 4_700_000_000),
    "vae": _runtime(
        "vae",
        "ckpt/vae/autoencoder_music_1320k.ckpt",
        674_920_616,
        674_920_616,
        "10ccb6c83613781ad32e998a90597ba7eb9292911a224598da1fd53728eb4cd3",
    ),
    "separator": _runtime("separator", "third_party/demucs/ckpt/htdemucs.pth", 168_100_000),
    # The Space keeps the current generation under the name of the old one.
    "presets": RemoteFile(
        "tencent/SongGeneration",
        "48275bf2c48a655af63684672fbbb1742ee4e919",
        "tools/new_prompt.pt",
        "tools/new_auto_prompt.pt",
        14_959_842,
        "616dbe27c99ac8ce7447423b6baa102f8c19d35e35d9020f32ad27e9a52134e7",
        "space",
        about_bytes=14_959_842,
        kind="presets",
    ),
}


def published_registry() -> Registry:
    """The table of this package, without any override."""
    return Registry({name: _release(name, about) for name, about in _PUBLISHED.items()}, dict(_SHARED))
