"""What the training tests share."""

import gzip
from pathlib import Path

import pytest

from songgen_core.text.bpe import load_tokenizers
from training.lm_batches import SongSource
from training.settings import read_settings
from training.synth.corpus import random_request

SMOKE = Path(__file__).parents[2] / "training" / "smoke.yaml"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SongSource:
    folder = tmp_path_factory.mktemp("words")
    text = "[english]\nlove L AH V\n[pinyin]\nni 你\n[phrases]\n"
    (folder / "lexicon.txt.gz").write_bytes(gzip.compress(text.encode()))
    tokenizers = load_tokenizers(folder, "v2")
    return SongSource(
        lambda rng, seconds: random_request(rng, tokenizers.lyrics.lexicon, seconds),
        tokenizers,
        read_settings(SMOKE).lm(tokenizers),
    )
