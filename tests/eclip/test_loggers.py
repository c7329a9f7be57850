"""Which logger, and online or offline: decided by settings, environment and ~/.netrc, and never by asking."""

from __future__ import annotations

import pytest
from lightning.pytorch.loggers import CSVLogger

from eclip.config import Logger
from eclip.loggers import finish, make_loggers, wandb_mode


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without keys."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "k" * 40}, "", "online"),
        ({"WANDB_API_KEY": ""}, "", "offline"),
        ({}, "machine api.wandb.ai login user password k", "online"),
        ({}, "machine example.org login user password k", "offline"),
        (
            {"WANDB_BASE_URL": "https://wandb.example.org/"},
            "machine wandb.example.org login u password k",
            "online",
        ),
        ({}, "this is no netrc", "offline"),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k" * 40}, "", "disabled"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "k" * 40}, "", "offline"),
    ],
)
def test_online_only_with_a_key(home, monkeypatch, environment, netrc, mode):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc:
        (home / ".netrc").write_text(netrc)
        (home / ".netrc").chmod(0o600)
    assert wandb_mode() == mode


def test_none_is_none(tmp_path):
    assert make_loggers(Logger("none"), tmp_path, {}) == []
    finish([], {"mean_rank": 1.0})
    assert not list(tmp_path.iterdir())


def test_csv_holds_the_curve_and_the_scores(tmp_path):
    [logger] = make_loggers(Logger("csv"), tmp_path, {})
    assert isinstance(logger, CSVLogger)
    logger.log_metrics({"train/loss": 2.5}, step=0)
    finish([logger], {"mean_rank": 7.0})
    header, *lines = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    assert {"train/loss", "mean_rank"} <= set(header.split(","))
    assert "7.0" in lines[-1]
