"""Texts in, token ids out: a WordPiece vocabulary learnt from the captions, or DistilBERT's own.

The vocabulary is learnt here and not by `tokenizers`' trainer, which breaks ties by the order of a randomised
hash map: two runs on the same captions give different vocabularies, and with them different scores.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.implementations import BertWordPieceTokenizer

from eclip.data.batch import PADDING

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = 4000
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
HUB_SECONDS = 0.8

Pair = tuple[str, str]


def load_tokenizer(name: str, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer called `name`: "wordpiece" (learnt from `texts`), a local path, or a name on the hub.

    A path is a tokenizer.json, or a folder that holds tokenizer.json or vocab.txt.
    Raises FileNotFoundError, saying what to do, within a second where there is neither file nor network.
    """
    if name == "wordpiece":
        return wordpiece(learn_vocabulary(texts))
    tokenizer = _from_path(find_tokenizer(name))
    for token, wanted in (("[PAD]", PADDING), ("[CLS]", None), ("[SEP]", None)):
        found = tokenizer.token_to_id(token)
        if found is None or wanted not in (None, found):
            raise ValueError(f"model.tokenizer={name!r}: {token} has id {found}, expected a BERT vocabulary")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> npt.NDArray[np.int32]:
    """token_NL: [CLS] first, [SEP] last (kept when a text is cut to `length`), 0 = padding."""
    if length < 3:
        raise ValueError(f"{length} tokens do not hold [CLS], a word and [SEP]: use 3 or more")
    tokenizer.enable_truncation(length)
    tokens_NL = np.full((len(texts), length), PADDING, dtype=np.int32)
    for row, encoded in zip(tokens_NL, tokenizer.encode_batch(list(texts)), strict=True):
        row[: len(encoded.ids)] = encoded.ids
    tokenizer.no_truncation()
    return tokens_NL


def wordpiece(pieces: Sequence[str]) -> Tokenizer:
    """A lower-casing BERT tokenizer over these pieces, ids in their order."""
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def learn_vocabulary(texts: Iterable[str], size: int = VOCABULARY) -> list[str]:
    """The pieces of a WordPiece vocabulary of at most `size`, the most frequent merges first.

    Pieces grow by merging the most frequent neighbours (as in `tokenizers`' trainer); ties are broken by the
    pieces' spelling, so the same texts in any order give the same list. A merge seen once is not learnt.
    """
    counts = list(_words(texts).items())
    words = [[word[0], *("##" + letter for letter in word[1:])] for word, _ in counts]
    pieces = [*SPECIAL, *sorted({piece for word in words for piece in word})]
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in itertools.pairwise(word):
            pairs[pair] += counts[index][1]
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    known = set(pieces)
    while heap and len(pieces) < size:
        count, best = heapq.heappop(heap)
        if -count != pairs[best] or -count < 2:  # an outdated entry, or a pair that is too rare
            continue
        merged = best[0] + best[1].removeprefix("##")
        if merged not in known:
            known.add(merged)
            pieces.append(merged)
        touched: set[Pair] = set()
        for index in where.pop(best):
            before, words[index] = words[index], _merge(words[index], best, merged)
            for word, sign in ((before, -1), (words[index], 1)):
                for pair in itertools.pairwise(word):
                    pairs[pair] += sign * counts[index][1]
                    touched.add(pair)
                    if sign > 0:
                        where[pair].add(index)
        for pair in touched:
            heapq.heappush(heap, (-pairs[pair], pair))
    return pieces


def _words(texts: Iterable[str]) -> Counter[str]:
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text, count in Counter(texts).items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            words[word] += count
    return words


def _merge(word: list[str], pair: Pair, merged: str) -> list[str]:
    result: list[str] = []
    for piece in word:
        # a piece that has just been merged differs from pair[0], or starts the next pair: both are right
        if result and (result[-1], piece) == pair:
            result[-1] = merged
        else:
            result.append(piece)
    return result


def fingerprint(name: str) -> str:
    """What tells two tokenizers apart: the content of the files of a given one."""
    if name == "wordpiece":
        return name
    path = find_tokenizer(name)
    content = [(path / file).read_bytes() for file in TOKENIZER_FILES if (path / file).is_file()]
    return hashlib.sha256(b"\0".join(content) if path.is_dir() else path.read_bytes()).hexdigest()


def find_tokenizer(name: str) -> Path:
    """The local file or folder of a tokenizer; fetched from the hub where it is neither here nor cached."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.endswith((".json", ".txt")):
        raise FileNotFoundError(f"model.tokenizer={name!r}: no such file or folder")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    import huggingface_hub  # heavy, and needed for hub names alone

    cached = huggingface_hub.try_to_load_from_cache(name, "tokenizer.json")
    if isinstance(cached, str):
        return Path(cached)
    if huggingface_hub.constants.HF_HUB_OFFLINE or not _reachable(huggingface_hub.constants.ENDPOINT):
        raise FileNotFoundError(
            f"model.tokenizer={name!r} is neither a local path nor in the hub's cache, and the hub is not "
            f"reachable. Fetch it where there is a network (`hf download {name}`), give a local path, "
            "or set model.tokenizer=wordpiece."
        )
    return Path(huggingface_hub.hf_hub_download(name, "tokenizer.json"))


def _reachable(address: str) -> bool:
    """Whether the hub answers at all: its client would try for half a minute before it gives up."""
    import requests

    try:
        requests.head(address, timeout=HUB_SECONDS)
    except requests.RequestException:
        return False
    return True


def _from_path(path: Path) -> Tokenizer:
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file() and file.suffix == ".json":
        return Tokenizer.from_file(str(file))
    vocabulary = path / "vocab.txt" if path.is_dir() else path
    if not vocabulary.is_file():
        raise FileNotFoundError(f"model.tokenizer={str(path)!r}: holds neither tokenizer.json nor vocab.txt")
    settings = vocabulary.with_name("tokenizer_config.json")
    lowercase = not settings.is_file() or json.loads(settings.read_text()).get("do_lower_case", True)
    # its Rust tokenizer, saved and loaded like any other
    built = BertWordPieceTokenizer(str(vocabulary), lowercase=lowercase)
    return Tokenizer.from_str(built.to_str())
