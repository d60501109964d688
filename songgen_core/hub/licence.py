"""The licence of the weights: shown before the first download, accepted once per models folder."""

import json
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..atomic import complete_or_nothing
from ..errors import DownloadError, UserError

LICENCE_ID = "License Terms of SongGeneration"
LICENCE_LINK = "https://github.com/tencent-ailab/SongGeneration/blob/main/LICENSE"
ACCEPTED_NAME = ".songgen-licence.json"

_TEXT = f"""\
The song models, codecs and the VAE are published by Tencent under the "{LICENCE_ID}":
  {LICENCE_LINK}
In short, which does not replace reading them:
  - academic, research and education purposes only; no commercial and no production use;
  - the terms cover the weights as well as conversions of them;
  - the stem separator (HTDemucs, Meta) is under the MIT licence."""


def licence_text() -> str:
    """What a user is asked to accept: a summary of several lines, with the link to the terms."""
    return _TEXT


def is_accepted(root: Path) -> bool:
    """Whether the present licence was accepted for the models folder `root`."""
    try:
        noted = json.loads((root / ACCEPTED_NAME).read_text(encoding="utf-8"))
        return bool(noted["licence"] == LICENCE_ID)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def accept(root: Path) -> None:
    """Note in `root`, which is made if need be, that the user accepts. Raises DownloadError."""
    noted = {
        "licence": LICENCE_ID,
        "link": LICENCE_LINK,
        "accepted": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "songgen": __version__,
    }
    try:
        with complete_or_nothing(root / ACCEPTED_NAME) as path:
            path.write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise DownloadError(
            f"{root} cannot be written to ({reason}); choose another models folder"
        ) from error


def require_acceptance(root: Path) -> None:
    """Raise UserError, which says how to accept, unless it was done for `root`."""
    if not is_accepted(root):
        raise UserError(
            f"the weights are for research and education only ({LICENCE_ID}, {LICENCE_LINK}); if you accept"
            " that, add --accept-licence to 'songgen download', or set 'licence' in the Load LeVo Model node"
        )
