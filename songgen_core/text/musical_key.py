"""Musical keys in words: "the key is A minor", "in D flat major", "C# minor"."""

import re

NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
KEYS: tuple[str, ...] = (*(f"{note} major" for note in NOTES), *(f"{note} minor" for note in NOTES))

_NOTE = r"(?P<note>[a-g])(?: ?(?P<sharp>#|♯|sharp\b)| ?(?P<flat>♭|flat\b)|(?P<b>b))?"
_MODE = r"(?P<mode>maj|min)(?:or)?\b"
# "is a" with a word behind it is an article: "the key is a mystery".
_BARE = r"(?![\w#'-])(?:(?<! is a)|(?! \w))"
_NAMED = re.compile(rf"(?<!\w)key(?: is| of|:|=)? ?{_NOTE}(?: ?{_MODE}|{_BARE})", re.IGNORECASE)
# "a minor key" names no key.
_PLAIN = re.compile(rf"(?<![\w#'-]){_NOTE}[ -]?{_MODE}(?! key)", re.IGNORECASE)
_TAG = re.compile(rf"(?:(?:in )?(?:the )?key(?: is| of|:|=)? ?|in )?{_NOTE}[ -]?{_MODE}", re.IGNORECASE)


def find_key(text: str) -> str | None:
    """The first key named in `text`, as one of KEYS ("D flat major" is "C# major"); a bare note is major."""
    match = _NAMED.search(text) or _PLAIN.search(text)
    if match is None:
        return None
    shift = 1 if match["sharp"] else -1 if match["flat"] or match["b"] else 0
    note = NOTES[(NOTES.index(match["note"].upper()) + shift) % len(NOTES)]
    return f"{note} {'minor' if (match['mode'] or '').lower() == 'min' else 'major'}"


def is_key_tag(text: str) -> bool:
    """Whether `text` as a whole does nothing but name a key."""
    return _TAG.fullmatch(text) is not None
