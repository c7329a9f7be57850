"""Folds sealed from a composed config: once, apart from their keys, each with an order of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eclip.config import ConfigError, check
from eclip.data.sealed import FILES, open_sealed, read_key
from eclip.data.source import open_pool
from eclip.data.splits import folds
from eclip.sealing import seal_folds, seal_test
from eclip.training import build_module
from tests.eclip.conftest import composed


@pytest.fixture(scope="module")
def config(prints: Path) -> Any:
    where = f"data.root={prints}/synthetic data.pack_dir={prints}/packs data.prints=60 data.test_prints=12 run.dir=x"
    return composed(*where.split(), "data.workers=2")


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    return tmp_path_factory.mktemp("vault")


@pytest.fixture(scope="module")
def sealed(config, vault):
    return seal_folds(config, [0, 2], vault)


def test_a_fold_is_a_folder_and_a_key_that_lies_apart(sealed):
    assert [fold for fold, _, _ in sealed] == [0, 2]
    for _, folder, key in sealed:
        assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(FILES)
        assert not key.is_relative_to(folder)
        assert key.stat().st_mode & 0o777 == 0o600


def test_it_holds_what_the_split_says_in_the_keys_order(config, sealed):
    settings = check(config)
    pool = open_pool(settings.data, settings.model)
    for fold, folder, key in sealed:
        train, validation = folds(60, 3, 42)[fold]
        data, orders = open_sealed(folder), read_key(key)
        assert np.array_equal(data.val_images_NHWC, pool.images_NHWC[validation[orders.image_N]])
        tokens = pool.captions_NL[validation[orders.text_N]]
        assert np.array_equal(data.val_captions_NL, tokens[:, : data.val_captions_NL.shape[1]])
        assert np.array_equal(data.train.images_NHWC, pool.images_NHWC[train])
        assert data.orders is None


def test_sealed_once_and_used_again(config, vault, sealed):
    keys = [key.read_bytes() for _, _, key in sealed]
    assert seal_folds(config, [0, 2], vault) == sealed
    assert [key.read_bytes() for _, _, key in sealed] == keys


def test_another_vault_has_other_orders(config, sealed, tmp_path):
    [(_, _, key)] = seal_folds(config, [0], tmp_path)
    assert not np.array_equal(read_key(key).image_N, read_key(sealed[0][2]).image_N)


def test_orders_of_sides_and_folds_differ(sealed):
    first, second = (read_key(key) for _, _, key in sealed)
    for one, other in ((first.image_N, first.text_N), (first.image_N, second.image_N)):
        assert not np.array_equal(one, other)


def test_a_lost_key_is_drawn_anew_with_its_folder(config, tmp_path):
    [(_, folder, key)] = seal_folds(config, [1], tmp_path)
    before = read_key(key).image_N
    images = open_sealed(folder).val_images_NHWC.copy()
    key.unlink()
    seal_folds(config, [1], tmp_path)
    after, again = read_key(key).image_N, open_sealed(folder).val_images_NHWC
    assert not np.array_equal(after, before)
    # the new key fits the new folder
    assert np.array_equal(images[np.argsort(before)], again[np.argsort(after)])


def test_another_cut_lies_elsewhere(config, vault, sealed):
    config = config.copy()
    config.data.split_seed = 7
    [(_, folder, _)] = seal_folds(config, [0], vault)
    assert folder.parent != sealed[0][1].parent


def test_the_test_split_is_sealed_with_everything_to_learn_from(config, tmp_path):
    folder, key = seal_test(config, tmp_path)
    assert seal_test(config, tmp_path) == (folder, key)
    data = open_sealed(folder)
    assert (len(data.train), data.candidates, data.fold) == (60, 12, None)
    assert sorted(read_key(key).text_N) == list(range(12))


def test_a_run_has_its_pretrained_weights_beside_its_data(prints, tmp_path):
    """Small files under the published names: found on the host, loaded where there is neither network nor cache."""
    from eclip import torchvision_fix  # noqa: F401  (before timm and transformers)

    import timm  # isort: skip
    from transformers import DistilBertConfig, DistilBertModel  # isort: skip

    name = "vit_tiny_patch16_224"
    vit = timm.create_model(name, num_classes=0, img_size=32)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    bert = DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64))
    bert.save_pretrained(tmp_path / "bert")
    model = [
        "model=eclip_vits", f"model.image.name={name}", "model.image_size=32", "model.tokenizer=wordpiece",
        "model.projection.dim=32",
    ]  # fmt: skip
    weights = [f"model.image.weights={tmp_path}/vit.safetensors", f"model.text.weights={tmp_path}/bert"]
    where = [f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs", "run.dir=x"]
    config = composed(*where, *model, *weights, "data.prints=60", "data.test_prints=12", "data.workers=2")
    [(_, folder, _)] = seal_folds(config, [0], tmp_path / "vault")
    settings = check(composed(*where, *model, "evaluation=sealed", f"data.sealed={folder}"))
    built = build_module(settings, open_sealed(folder), None).model
    assert torch.equal(built.image.vit.patch_embed.proj.weight, vit.patch_embed.proj.weight)
    assert torch.equal(
        built.text.bert.embeddings.word_embeddings.weight, bert.embeddings.word_embeddings.weight
    )
    (tmp_path / "vit.safetensors").unlink()
    assert seal_folds(config, [0], tmp_path / "vault")[0][1] == folder
    assert not (folder / "weights").stat().st_mode & 0o022
    with pytest.raises(ConfigError, match=r"model\.image\.weights=.*no such file"):
        seal_folds(config, [1], tmp_path / "vault")
