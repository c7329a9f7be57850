"""A pool of 60 prints and a test split of 12, read and packed once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from eclip.data.odvg import Annotations, read_split
from eclip.data.pack import Pack, build_pack
from tests.eclip.data.ukiyo import SETTINGS, dataset


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 training, 10 validation and 12 test prints."""
    root = tmp_path_factory.mktemp("ukiyo")
    for split, numbers in (("train", range(50)), ("val", range(50, 60)), ("test", range(60, 72))):
        dataset(root, split, numbers)
    return root


@pytest.fixture(scope="session")
def pool(root: Path) -> Annotations:
    return read_split(root, "train") + read_split(root, "val")


@pytest.fixture(scope="session")
def pack(pool: Annotations, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return build_pack(pool, out_dir=tmp_path_factory.mktemp("packs"), **SETTINGS)


@pytest.fixture(scope="session")
def pack_of_test(root: Path, pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    settings = SETTINGS | {"tokenizer": str(pack.tokenizer_path)}
    return build_pack(read_split(root, "test"), out_dir=tmp_path_factory.mktemp("packs"), **settings)
