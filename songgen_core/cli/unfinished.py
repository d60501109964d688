"""Songs of a list whose files are in place before the record knows of them.

A run that is killed between the two leaves files that no record tells of. Their names are noted before they
appear, so that the next run replaces them; all other files are the user's.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..atomic import complete_or_nothing


class Unfinished:
    """Names of files in one folder, one per line of a hidden file that is there only while there are any."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".songgen-unfinished"
        self._names: set[str] = set()
        if self._path.exists():
            self._names.update(self._path.read_text(encoding="utf-8", errors="replace").splitlines())

    def covers(self, files: Iterable[Path]) -> bool:
        """Whether those of them that exist are all noted."""
        return all(file.name in self._names for file in files if file.exists())

    def add(self, files: Iterable[Path]) -> None:
        """Files that are about to appear. Raises OSError."""
        self._keep(self._names | {file.name for file in files})

    def remove(self, files: Iterable[Path]) -> None:
        """Files that the record tells of. A name that cannot be taken out does no harm: that comes first."""
        with suppress(OSError):
            self._keep(self._names - {file.name for file in files})

    def _keep(self, names: set[str]) -> None:
        if names == self._names:
            return
        if names:
            with complete_or_nothing(self._path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.write("\n".join(sorted(names)))
                file.flush()
                os.fsync(file.fileno())
        else:
            self._path.unlink(missing_ok=True)
        self._names = names
