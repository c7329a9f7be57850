"""The report of one study or several: `python scripts/report.py study=NAME`, or `studies=[A,B] out=runs/report`.

In names * and ? stand for anything: `studies=[compare-cpu-*]`.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from agent.campaign import studies_named
from agent.command import launch
from agent.report import Campaign, load
from agent.report.files import write
from agent.report.published import TASK
from agent.report.wandb_table import group_links, write_table
from agent.study import open_ledger
from agent.task import Scale
from agent.wandb_upload import Upload, wandb_mode

ROOT = Path(__file__).resolve().parent.parent


def main(config: DictConfig) -> None:
    """Writes the report and prints its path."""
    print(report(config))


def report(config: DictConfig) -> Path:
    """The page's path. Raises CampaignError for a name that is not there, ValueError for other settings."""
    ledger = open_ledger(config, ROOT)
    wanted = [config.study] if config.study else list(config.studies)
    if not wanted:
        known = ", ".join(ledger.studies()) or "none yet"
        raise ValueError(f"choose study=NAME or studies=[A,B]; the ledger has: {known}")
    studies = studies_named(wanted, ledger)
    scale, metric = task_settings(config, studies[0].spec.task)
    names = [study.name for study in studies]
    campaign = load(ledger, names, scale, metric)
    made = f"made {datetime.now():%Y-%m-%d %H:%M}"
    links = cast("dict[str, str]", OmegaConf.to_container(config.links))
    if config.tracker.name == "wandb" and wandb_mode() != "disabled":
        save_table(campaign, config)
        if wandb_mode() == "online":
            links = (
                group_links(names, config.tracker.project, config.tracker.entity or "", os.environ) | links
            )
    return write(campaign, ROOT / config.out, made, links, overlay=campaign.task.startswith(TASK))


def save_table(campaign: Campaign, config: DictConfig) -> None:
    """All trials as a W&B artifact; a problem with W&B is said and takes nothing from the report."""
    out = ROOT / config.out
    try:
        run = write_table(campaign, out, config.tracker.project, out.name)
        if wandb_mode() == "online":
            upload = Upload.start([run], config.tracker.upload_seconds)
            upload.wait()
            if problem := upload.problem():
                print(f"W&B: {problem}; upload later with: make wandb-sync study={out.name}", file=sys.stderr)
    except Exception as error:  # W&B's errors are of many kinds
        print(f"W&B: no table of trials: {type(error).__name__}: {error}", file=sys.stderr)


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
    launch(main, "report")
