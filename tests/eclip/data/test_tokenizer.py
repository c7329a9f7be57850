"""Texts to tokens: a learnt vocabulary is the same in every process; given ones are taken as they are."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from eclip.data.tokenizer import encode, fingerprint, learn_vocabulary, load_tokenizer, wordpiece

TEXTS = ["The boats under the moon", "a boat, under a pine", "boating by moonlight", "Hokusai's boats"] * 3


def test_the_vocabulary_depends_on_the_texts_alone() -> None:
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    assert learn_vocabulary(shuffled) == learn_vocabulary(TEXTS)
    program = f"from eclip.data.tokenizer import learn_vocabulary; print(learn_vocabulary({TEXTS!r}))"
    for seed in ("1", "2"):
        command = [sys.executable, "-c", program]
        environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == str(learn_vocabulary(TEXTS))


def test_frequent_words_become_pieces_and_the_size_is_kept() -> None:
    pieces = learn_vocabulary(TEXTS)
    assert pieces[:4] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    assert {"boat", "moon", "under", "the"} <= set(pieces)
    assert len(pieces) == len(set(pieces))
    assert len(learn_vocabulary(TEXTS, size=40)) == 40
    # b-o, o-a and a-t are seen equally often (4 boats in each of 3 rounds); spelling decides
    letters = 4 + len({piece for piece in pieces[4:] if len(piece.removeprefix("##")) == 1})
    assert pieces[letters] == "##at"


def test_a_pair_seen_once_is_not_learnt() -> None:
    assert all(len(piece.removeprefix("##")) == 1 for piece in learn_vocabulary(["zebra", "quilt"])[4:])


def test_ends_padding_and_truncation() -> None:
    tokenizer = wordpiece(learn_vocabulary(TEXTS))
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokens_NL = encode(tokenizer, ["boat", "boat under the moon by a pine under a moon", "🗻"], 6)
    assert tokens_NL.dtype == np.int32
    assert tokens_NL.shape == (3, 6)
    assert tokens_NL[:, 0].tolist() == [start] * 3
    assert tokens_NL[0].tolist() == [start, tokenizer.token_to_id("boat"), end, 0, 0, 0]
    assert tokens_NL[1, -1] == end
    assert (tokens_NL[1] != 0).all()
    assert tokens_NL[2, 1] == tokenizer.token_to_id("[UNK]")
    assert encode(tokenizer, ["BOAT"], 6).tolist() == tokens_NL[:1].tolist()
    with pytest.raises(ValueError, match="2 tokens"):
        encode(tokenizer, ["boat"], 2)


def test_local_tokenizers_are_taken_from_a_file_or_a_folder(tmp_path: Path) -> None:
    pieces = learn_vocabulary(TEXTS)
    wordpiece(pieces).save(str(tmp_path / "tokenizer.json"))
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces))
    expected = encode(wordpiece(pieces), TEXTS, 12).tolist()
    for name in (tmp_path / "tokenizer.json", tmp_path, folder, folder / "vocab.txt"):
        assert encode(load_tokenizer(str(name), []), TEXTS, 12).tolist() == expected
    assert len({fingerprint(str(name)) for name in (tmp_path, folder)} | {"wordpiece"}) == 3


def test_a_learnt_tokenizer_is_the_same_after_saving(tmp_path: Path) -> None:
    learnt = load_tokenizer("wordpiece", TEXTS)
    before = encode(learnt, TEXTS, 8)
    learnt.save(str(tmp_path / "tokenizer.json"))
    assert np.array_equal(encode(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), TEXTS, 8), before)


def test_a_vocabulary_that_is_no_berts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\na")
    with pytest.raises(ValueError, match=r"\[PAD\] has id 1"):
        load_tokenizer(str(tmp_path), [])


def test_a_missing_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_tokenizer("./absent", [])
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.txt"):
        load_tokenizer(str(tmp_path), [])


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_network_and_cache_it_fails_within_a_second(tmp_path: Path, offline: str) -> None:
    program = "import sys\nfrom eclip.data.tokenizer import load_tokenizer\n"
    program += "import huggingface_hub, requests, time\nstart = time.monotonic()\n"
    program += "try:\n    load_tokenizer('distilbert/distilbert-base-uncased', [])\n"
    program += "except FileNotFoundError as error:\n    print(time.monotonic() - start, error)\n"
    environment = {
        "PYTHONPATH": ":".join(sys.path),
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": offline,
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing listens there
    }
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, message = found.stdout.split(" ", 1)
    assert float(seconds) < 1
    assert "model.tokenizer=wordpiece" in message
