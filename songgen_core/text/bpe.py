"""Text to token ids: Qwen2's byte-level BPE with the added tokens of the two text conditioners.

Built on the `tokenizers` library alone, in the behaviour of the slow Qwen2 tokenizer that the models were
trained with (LeVo spec 4).
"""

import json
import re
import unicodedata
from pathlib import Path
from typing import Protocol

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from ..configs import TextVersion
from ..errors import CheckpointError
from .lyrics import STRUCTURE_TAGS
from .phone_tokens import WORDS, KeywordDescription, PhoneLyrics
from .phonetics import LEXICON_NAME, Lexicon
from .special_tokens import IM_START, MUSICALITY_TAGS, QWEN_TOKENS

TOKENIZER_NAMES = ("vocab.json", "merges.txt", "tokenizer.json", LEXICON_NAME)
QWEN2_FOLDER = Path(__file__).parent / "qwen2"
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class TextTokenizer:
    """One conditioner's tokenizer: `encode(text)` gives the ids behind the start token."""

    def __init__(self, model: BPE, added: tuple[str, ...]) -> None:
        """Tokenizers may share `model`, which the tokens `added` do not change."""
        self._tokenizer = Tokenizer(model)
        self.pad_id = self.size  # <|endoftext|>, the first behind the vocabulary
        split = Split(Regex(_PATTERN), behavior="isolated")
        self._tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
        self._tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (*QWEN_TOKENS, *added)])

    def encode(self, text: str | None) -> list[int]:
        """Ids of `text`, the start token first; None and "" both mean 'no text'."""
        text = unicodedata.normalize("NFC", IM_START + (text or ""))
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    @property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size()


class ReadsText(Protocol):
    """What a conditioner's tokenizer can do, whatever its vocabulary is."""

    pad_id: int

    @property
    def size(self) -> int: ...

    def encode(self, text: str | None) -> list[int]: ...


class TextTokenizers:
    """The tokenizers of the lyric and of the description conditioner of one text version."""

    def __init__(self, lyrics: ReadsText, description: ReadsText) -> None:
        self.lyrics, self.description = lyrics, description
        self.pad_id = lyrics.pad_id

    def structure(self, ids: list[int]) -> list[int]:
        """Structure index of each lyric position: 0 before the first tag, then 1..13 of the tag in force."""
        first = self.pad_id + len(QWEN_TOKENS)
        current, out = 0, []
        for token in ids:
            if first <= token < first + len(STRUCTURE_TAGS):
                current = token - first + 1
            out.append(current)
        return out


def load_tokenizers(folder: Path, version: TextVersion) -> TextTokenizers:
    """Both tokenizers from `vocab.json` + `merges.txt`, or `tokenizer.json`, in `folder`.

    A folder with a lexicon is that of a model which reads phones.
    """
    if (folder / LEXICON_NAME).exists():
        lexicon = Lexicon.read(folder / LEXICON_NAME)
        return TextTokenizers(PhoneLyrics(lexicon), KeywordDescription(musicality=version == "v2"))
    model = _read_bpe(folder)
    structure = tuple(f"[{tag}]" for tag in STRUCTURE_TAGS)
    # "." is entry 13 of the vocabulary already; as an added token it makes every full stop split the text.
    stop = (".",) if version == "v2" else ()
    musicality = MUSICALITY_TAGS if version == "v2" else ()
    return TextTokenizers(
        TextTokenizer(model, (*structure, *stop)),
        TextTokenizer(model, (*musicality, *stop)),
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether `folder` holds what `load_tokenizers` reads."""
    alone = any((folder / n).exists() for n in (LEXICON_NAME, "tokenizer.json"))
    return alone or all((folder / n).exists() for n in ("vocab.json", "merges.txt"))


def tokenizer_files(folder: Path | None) -> list[Path]:
    """The files in `folder` that `load_tokenizers` may read; none without a folder."""
    return [] if folder is None else [p for n in TOKENIZER_NAMES if (p := folder / n).exists()]


def _read_bpe(folder: Path, *, merged: bool = True) -> BPE:
    """The model in `folder`; not `merged`, its vocabulary alone.

    Files go to the library as JSON, in a few large pieces: as half a million Python objects they would leave
    holes in Python's memory, and a server that loads one model after the other would grow.
    """
    try:
        vocab, merges = _read_files(folder)
        json_model = b'{"version":"1.0","model":{"type":"BPE","vocab":%s,"merges":[%s]}}'
        return Tokenizer.from_buffer(json_model % (vocab, _as_json(merges) if merged else b"")).model
    except CheckpointError:
        raise
    except Exception as error:  # the library has no class of its own for what it cannot read
        raise CheckpointError(f"the tokenizer in {folder} is damaged ({error}); download it again") from error


def _read_files(folder: Path) -> tuple[bytes, bytes]:
    """What vocab.json and merges.txt hold, or would."""
    vocab, merges, whole = (folder / n for n in ("vocab.json", "merges.txt", "tokenizer.json"))
    if vocab.exists() and merges.exists():
        return vocab.read_bytes(), merges.read_bytes()
    if not whole.exists():
        raise CheckpointError(f"{folder} holds no tokenizer; put Qwen2's vocab.json and merges.txt there")
    model = json.loads(whole.read_bytes())["model"]
    lines = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    return json.dumps(model["vocab"]).encode(), "\n".join(lines).encode()


def _as_json(merges: bytes) -> bytes:
    """Lines -> JSON strings. Quirk: merges that start with '#' do not exist for these models."""
    lines = re.sub(rb"(?m)^(?:#.*)?\n", b"", merges.replace(b"\r\n", b"\n") + b"\n").rstrip(b"\n")
    quoted = lines.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b'","')
    return b'"%s"' % quoted if quoted else b""


def read_vocab_size(folder: Path) -> int:
    """Entries of the vocabulary in `folder`, added tokens not counted."""
    if (folder / LEXICON_NAME).exists():
        return len(WORDS)
    return Tokenizer(_read_bpe(folder, merged=False)).get_vocab_size()
