"""A campaign: searchers x searcher seeds under one budget; `python scripts/compare.py searchers=[random,tpe]`."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the lab itself; the runs get theirs from executor.threads

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from agent.campaign import Campaign, entries_of, open_from
from agent.campaign_view import CampaignView
from agent.command import launch
from agent.interrupt import on_interrupt

ROOT = Path(__file__).resolve().parent.parent


def main(config: DictConfig) -> None:
    """Runs, or resumes, every study of the campaign."""
    job = HydraConfig.get()
    entries = entries_of(config)
    budget = str(job.runtime.choices["budget"])
    opened = open_from(ROOT, str(job.job.config_name), list(job.overrides.task), budget)
    with CampaignView(Console(stderr=True), entries, config.budget.trials) as view:
        campaign = Campaign(entries, opened, view, config.order, config.share_reference)
        on_interrupt(campaign.request_stop, "the trial under way")
        reasons = campaign.run()
    unfinished = {name: reason for name, reason in reasons.items() if "stopped" in reason}
    if unfinished:
        print(f"not ended: {', '.join(unfinished)}; the same command goes on from here", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    launch(main, "compare")
