"""The user's changes to the table of downloads: other repositories, other versions, further variants.

They stand in the JSON file that $SONGGEN_REGISTRY names, else in `registry.json` of a models folder:

    {"variants": {"v2-large": {"repo": "me/copy", "files": {"model.pt": {"bytes": 1, "sha256": "..."}}},
                  "v2-fast": {"repo": "owner/name", "languages": ["zh", "en"], "max_seconds": 270}},
     "shared": {"codec": {"repo": "owner/name", "path": "a/b.safetensors", "bytes": null, "sha256": null}}}
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoint.files import WEIGHT_SUFFIXES
from ..errors import UserError
from .registry import REGISTRY_NAME, Registry, Release, RemoteFile, folder_of, published_registry

REGISTRY_VARIABLE = "SONGGEN_REGISTRY"

_MOST_BYTES = 1_000_000
_NAME = r"[a-z0-9][a-z0-9.-]*"
_FILE_NAME = r"\w[\w.-]*"


def load_registry(folders: Sequence[Path] = ()) -> Registry:
    """The published table, with what $SONGGEN_REGISTRY or the first `registry.json` in `folders` changes.

    Raises UserError for a file of changes that is missing or says something wrong.
    """
    published = published_registry()
    named = os.environ.get(REGISTRY_VARIABLE)
    beside = (folder / REGISTRY_NAME for folder in folders)
    source = Path(named).expanduser() if named else next((p for p in beside if p.is_file()), None)
    return published if source is None else _Changes(source).apply(published)


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_path(value: Any) -> bool:
    parts = value.split("/") if isinstance(value, str) else [""]
    return all(re.fullmatch(r"[\w ()+,.-]+", part) and part.strip(".") for part in parts)


# Field -> what it must be, in code and in words.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "repo": (_matches(r"[\w-][\w.-]*/[\w-][\w.-]*"), 'a repository such as "owner/name"'),
    "repo_type": (_matches("model|space"), '"model" or "space"'),
    "revision": (_matches(r"\w[\w./-]*"), "a commit, branch or tag"),
    "path": (_is_path, "a path inside the repository"),
    "bytes": (lambda v: v is None or (isinstance(v, int) and _is_number(v)), "a size in bytes, or null"),
    "sha256": (lambda v: v is None or _matches("[0-9a-f]{64}")(v), "64 hexadecimal digits, or null"),
    "languages": (lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v), "a list of texts"),
    "max_seconds": (_is_number, "a number of seconds"),
    "memory_gb": (_is_number, "a number of GB"),
    "memory_gb_with_prompt": (_is_number, "a number of GB"),
    "licence": (_matches(r".{1,200}"), "a name"),
}
_PLACE = ("repo", "repo_type", "revision")
_ABOUT = ("languages", "max_seconds", "memory_gb", "memory_gb_with_prompt", "licence")
_FILE = (*_PLACE, "path", "bytes", "sha256")


@dataclass(frozen=True)
class _Changes:
    """What one file says. Methods raise UserError that names file, place and what is expected there."""

    source: Path

    def apply(self, published: Registry) -> Registry:
        raw = self._table(self._read(), "the whole", ("variants", "shared"))
        releases, shared = dict(published.releases), dict(published.shared)
        for name, entry in self._table(raw.get("variants", {}), "variants").items():
            if not re.fullmatch(_NAME, name):
                raise self._error(f"variants.{name}", "a name of small letters, digits, - and .")
            known = published.releases.get(name)
            releases[name] = (
                self._changed(known, f"variants.{name}", entry) if known else self._new(name, entry)
            )
        for kind, entry in self._table(raw.get("shared", {}), "shared", tuple(shared)).items():
            shared[kind] = self._file(shared[kind], f"shared.{kind}", entry)
        return Registry(releases, shared, self.source)

    def _read(self) -> Any:
        try:
            with self.source.open("rb") as file:
                return json.loads(file.read(_MOST_BYTES).decode("utf-8-sig"))
        except OSError as error:
            raise UserError(
                f"{self.source} cannot be read ({error.strerror}); correct ${REGISTRY_VARIABLE} or unset it"
            ) from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.source} is no JSON ({error}); correct it or remove it") from error

    def _new(self, name: str, entry: Any) -> Release:
        where = f"variants.{name}"
        table = self._table(entry, where, (*_PLACE, *_ABOUT, "files"))
        if "repo" not in table:
            raise self._error(where, 'a table with a "repo", since no such variant is published')
        files = [
            RemoteFile(table["repo"], "main", n, f"{folder_of(name)}/{n}")
            for n in ("config.yaml", "model.pt")
        ]
        blank = Release(name, (files[0], replace(files[1], kind="lm")))
        return self._changed(blank, where, entry)

    def _changed(self, known: Release, where: str, entry: Any) -> Release:
        table = self._table(entry, where, (*_PLACE, *_ABOUT, "files"))
        place = {key: table[key] for key in _PLACE if key in table}
        files = {file.name: _moved(file, place) for file in known.files}
        first, folder = known.files[0], folder_of(known.name)
        for name, changes in self._table(table.get("files", {}), f"{where}.files").items():
            inside = f"{where}.files.{name}"
            if not re.fullmatch(_FILE_NAME, name) or (name not in files and name.endswith(WEIGHT_SUFFIXES)):
                raise self._error(inside, "a file beside the weights, which are called model.pt")
            beside = RemoteFile(
                first.repo, first.revision, name, f"{folder}/{name}", repo_type=first.repo_type
            )
            file = files.get(name) or _moved(beside, place)
            files[name] = self._file(file, inside, changes)
        about: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in table.items() if key in _ABOUT
        }
        return replace(known, files=tuple(files.values()), **about)

    def _file(self, file: RemoteFile, where: str, entry: Any) -> RemoteFile:
        moved = _moved(file, self._table(entry, where, _FILE))
        if Path(moved.path).suffix != (suffix := Path(moved.target).suffix):
            raise self._error(f"{where}.path", f"a {suffix} file")
        return moved

    def _table(self, value: Any, where: str, allowed: tuple[str, ...] = ()) -> dict[Any, Any]:
        """`value` if it is an object with allowed keys (any, if none are named) and sound values."""
        if not isinstance(value, dict):
            raise self._error(where, "a table in braces")
        for key, inner in value.items() if allowed else ():
            if key not in allowed:
                raise UserError(f"{self.source}: unknown entry '{key}' in {where}; use {', '.join(allowed)}")
            if key in _FIELDS and not _FIELDS[key][0](inner):
                raise self._error(f"{where}.{key}", _FIELDS[key][1])
        return value

    def _error(self, where: str, expected: str) -> UserError:
        return UserError(f"{self.source}: {where} must be {expected}; correct it or remove it")


def _moved(file: RemoteFile, changes: Mapping[str, Any]) -> RemoteFile:
    """A pinned commit means nothing in another repository; size and hash hold until they are changed."""
    moved = changes.get("repo", file.repo) != file.repo and "revision" not in changes
    return replace(file, **{**({"revision": "main"} if moved else {}), **changes})
