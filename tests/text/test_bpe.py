"""The byte-level BPE from its files: merges with quotes and hashes, one file or two, damaged ones."""

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from songgen_core.errors import CheckpointError
from songgen_core.text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers, read_vocab_size

MERGES = ['" "', "\\ \\", "\\ n", "# #", "Ġ #", "l a", "Ġ la", "é é", '\\\\ "']
TEXT = 'la la "" \\\\ \\n ## #la éé \\\\"'


def vocabulary() -> dict[str, int]:
    words = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    return {word: number for number, word in enumerate(words)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary(), ensure_ascii=False), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    return tmp_path


def words_of(tokenizers: TextTokenizers, text: str) -> list[str]:
    """Tokens behind the start token."""
    words = {number: word for word, number in vocabulary().items()}
    return [words[token] for token in tokenizers.lyrics.encode(text)[1:]]


def test_merges_with_quotes_and_backslashes_hold_and_those_behind_a_hash_do_not(folder):
    tokenizers = load_tokenizers(folder, "v2")
    assert words_of(tokenizers, '""') == ['""']
    assert words_of(tokenizers, "\\n") == ["\\n"]
    assert words_of(tokenizers, '\\\\"') == ['\\\\"']
    assert words_of(tokenizers, "##") == ["#", "#"]
    assert words_of(tokenizers, "la #") == ["la", "Ġ#"]
    assert read_vocab_size(folder) == tokenizers.pad_id == len(vocabulary())


def test_ids_are_those_of_a_tokenizer_made_of_python_objects():
    vocab = json.loads((QWEN2_FOLDER / "vocab.json").read_text(encoding="utf-8"))
    lines = (QWEN2_FOLDER / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#")]
    plain = Tokenizer(BPE(vocab=vocab, merges=merges))
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizers = load_tokenizers(QWEN2_FOLDER, "v1.5")
    assert read_vocab_size(QWEN2_FOLDER) == tokenizers.pad_id == len(vocab)
    for word in ("morning", " light", "Schöne", "歌声", "さくら", "사랑", "##", '\\"', "🎵"):
        ids = tokenizers.description.encode(word)[1:]
        assert ids == plain.encode(word).ids, word


@pytest.mark.parametrize("pairs", [False, True])
def test_one_file_or_two_of_any_line_ends_are_the_same(folder, tmp_path_factory, pairs):
    expected = words_of(load_tokenizers(folder, "v2"), TEXT)
    (folder / "merges.txt").write_bytes((folder / "merges.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert words_of(load_tokenizers(folder, "v2"), TEXT) == expected
    whole = tmp_path_factory.mktemp("whole")
    model = {"vocab": vocabulary(), "merges": [merge.split(" ") if pairs else merge for merge in MERGES]}
    (whole / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    assert words_of(load_tokenizers(whole, "v2"), TEXT) == expected


def test_a_vocabulary_without_merges_spells(folder):
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert words_of(load_tokenizers(folder, "v2"), "la") == ["l", "a"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.json", '{"a": 0'),
        ("vocab.json", '["a"]'),
        ("merges.txt", "l a\nalone\n"),
        ("merges.txt", "never heard\n"),
        ("merges.txt", "l\ta\n"),
    ],
)
def test_damaged_files_are_named(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"^the tokenizer in .* is damaged .* download it again$"):
        load_tokenizers(folder, "v2")


def test_a_damaged_or_missing_file_of_both(tmp_path):
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        load_tokenizers(tmp_path, "v2")
    for text in ("{", "[]", '{"model": {}}', '{"model": {"vocab": {}, "merges": [1]}}'):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_tokenizers(tmp_path, "v2")
