"""The report of one study or several: `python scripts/report.py study=NAME`, `studies=[A,B,…] out=runs/report`."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import cast

import hydra
from omegaconf import DictConfig, OmegaConf

from agent.ledger import LedgerError
from agent.report import load
from agent.report.files import write
from agent.report.published import TASK
from agent.study import open_ledger
from agent.task import Scale

ROOT = Path(__file__).resolve().parent.parent


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
def main(config: DictConfig) -> None:
    """Writes the report and prints its path."""
    try:
        print(report(config))
    except (LedgerError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


def report(config: DictConfig) -> Path:
    """The page's path. Raises LedgerError for an unknown study, ValueError for settings that do not fit."""
    names = [config.study] if config.study else list(config.studies)
    ledger = open_ledger(config, ROOT)
    if not names:
        known = ", ".join(ledger.studies()) or "none yet"
        raise ValueError(f"choose study=NAME or studies=[A,B]; the ledger has: {known}")
    scale, metric = task_settings(config, ledger.study(names[0]).spec.task)
    campaign = load(ledger, names, scale, metric)
    made = f"made {datetime.now():%Y-%m-%d %H:%M}"
    links = cast("dict[str, str]", OmegaConf.to_container(config.links))
    return write(campaign, ROOT / config.out, made, links, overlay=campaign.task == TASK)


def task_settings(config: DictConfig, task: str) -> tuple[Scale, str]:
    """(scale, metric) from the settings, else from the task's file. Raises ValueError where neither is there."""
    path = ROOT / "configs" / "task" / f"{task}.yaml"
    written = cast("DictConfig", OmegaConf.load(path)) if path.is_file() else OmegaConf.create({})
    scale, metric = config.scale or written.get("scale"), config.metric or written.get("metric")
    if scale not in ("log", "linear") or not metric:
        raise ValueError(
            f"scale={scale!r}, metric={metric!r}: no {path.name} says; set scale=log|linear metric=…"
        )
    return cast("Scale", scale), str(metric).replace("_", " ")


if __name__ == "__main__":
    main()
