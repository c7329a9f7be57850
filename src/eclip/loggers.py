"""The logger's settings and the run's folder go in, Lightning loggers come out; never a prompt that blocks."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any

from eclip.config import Logger


def make_loggers(settings: Logger, folder: Path, config: dict[str, Any]) -> list[Any]:
    """W&B (online where a key is there, offline otherwise), a CSV file, or none."""
    if settings.name == "csv":
        from lightning.pytorch.loggers import CSVLogger

        return [CSVLogger(save_dir=folder, name="csv", version="")]
    if settings.name == "wandb":
        return [_wandb(settings, folder, config)]
    return []


def wandb_mode() -> str:
    """WANDB_MODE when set, else online with a key in the environment or in ~/.netrc, else offline."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _key_in_netrc() else "offline"


def _key_in_netrc() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _wandb(settings: Logger, folder: Path, config: dict[str, Any]) -> Any:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    quiet = wandb.Settings(
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        disable_git=True,
        console="off",
        silent=True,
    )
    run = wandb.init(
        project=settings.project,
        group=settings.group,
        dir=folder,
        config=config,
        mode=wandb_mode(),  # type: ignore[arg-type]
        settings=quiet,
    )
    return WandbLogger(experiment=run)


def finish(loggers: list[Any], summary: dict[str, float]) -> None:
    """Writes the scores to the loggers' summaries and closes them."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.summary.update(summary)
            logger.experiment.finish()
        else:
            logger.log_metrics(summary)
            logger.save()
