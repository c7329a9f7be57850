"""Whether a run trains on a GPU, and what it says where it cannot."""

from __future__ import annotations

import logging

import pytest
import torch

from eclip import gpu
from eclip.config import ConfigError
from eclip.gpu import cards, gpu_has_bf16, idle_card, on_gpu, why_no_gpu
from eclip.training import half_precision
from tests.eclip.conftest import train_in
from tests.eclip.pretend_gpu import pretended_gpu
from tests.eclip.test_launch import settings


@pytest.fixture
def one_card(tmp_path, monkeypatch):
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpu, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def test_cards_are_counted_and_their_helpers_are_not(one_card):
    (one_card / "nvidia11").touch()
    (one_card / "dxg").touch()
    assert cards() == [f"{one_card}/{name}" for name in ("nvidia0", "nvidia11", "dxg")]


def test_a_gpu_that_is_asked_for_and_missing_is_an_error_that_says_why(one_card, monkeypatch):
    asked = settings("trainer.accelerator=gpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: torch .* was built without CUDA"):
        on_gpu(asked)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", lambda: (_ for _ in ()).throw(RuntimeError("driver too old")))
    with pytest.raises(ConfigError, match=r"CUDA does not start on .*nvidia0: driver too old"):
        on_gpu(asked)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert why_no_gpu() == "CUDA_VISIBLE_DEVICES= hides every GPU"
    (one_card / "nvidia0").unlink()
    assert "no NVIDIA device" in why_no_gpu()


def test_a_card_is_idle_only_where_nobody_chose_that(one_card, monkeypatch):
    assert "CUDA" in idle_card(settings())
    assert idle_card(settings("trainer.accelerator=cpu")) == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert idle_card(settings()) == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (one_card / "nvidia0").unlink()
    assert idle_card(settings()) == ""


def test_a_person_is_told_of_an_idle_card_and_the_lab_is_refused(one_card, prints, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "eclip"):
        assert train_in(prints, tmp_path / "open", "trainer.max_steps=1")["status"] == "completed"
    assert "training on the CPU, though there is a GPU" in caplog.text
    with pytest.raises(ConfigError, match=r"sandbox\.backend\.gpus=none"):
        train_in(prints, tmp_path / "sealed", "evaluation=sealed", "data.sealed=/nowhere")


def test_bf16_is_chosen_where_the_gpu_multiplies_it(monkeypatch):
    with pretended_gpu():
        assert gpu_has_bf16()
        assert half_precision(settings())
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))  # T4
        assert not half_precision(settings())
        assert half_precision(settings("trainer.precision=bf16"))
