"""What can go wrong that the user can mend.

Every message is one line that says what is wrong, where, and what to do about it. Command line and nodes
show these messages as they are; any other exception is a bug of ours and keeps its traceback.
"""


class UserError(ValueError):
    """A mistake in an input, a file or a setting; the message tells how to mend it."""


class LyricsError(UserError):
    """Lyrics that the model cannot sing; names section and line."""


class CheckpointError(UserError):
    """A model file that is missing, damaged or of another kind than asked for."""


class AudioError(UserError):
    """Audio that cannot be read, written or used."""


class DownloadError(UserError):
    """A file that cannot be downloaded; what has arrived of it is kept unless the message says not."""


class Cancelled(Exception):
    """The user stopped the work. Not an error: nothing is broken and nothing half-written is left."""
