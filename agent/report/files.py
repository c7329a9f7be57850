"""A campaign goes in, the report's files are written: report.html, summary.md and figures/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from agent.report.attribution import attribution
from agent.report.best_so_far import AXES, relative
from agent.report.campaign import Campaign
from agent.report.figures.bars import attribution_bars, importance_bars
from agent.report.figures.confirmed import confirmed
from agent.report.figures.race import race
from agent.report.figures.staircase import staircase
from agent.report.figures.style import THEMES, Theme, save
from agent.report.importance import importance
from agent.report.page import page
from agent.report.summary import summary

# pictures of single studies are made for so many at most; the page has them all
MOST_STAIRS = 2


def write(
    campaign: Campaign, out: Path, made: str, links: Mapping[str, str] | None = None, overlay: bool = False
) -> Path:
    """Writes everything into `out`, which is made; returns the page's path."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page(campaign, made, links, overlay), encoding="utf-8")
    (out / "summary.md").write_text(summary(campaign), encoding="utf-8")
    for name in ("light", "dark"):
        for title, figure in figures(campaign, THEMES[name], overlay):
            save(figure, out / "figures", f"{title}-{name}")
    return out / "report.html"


def figures(campaign: Campaign, theme: Theme, overlay: bool = False) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of all there is something to show for."""
    if any(len(relative(study, "trials")[0]) for study in campaign.studies):
        for axis in AXES:
            if axis != "usd" or any(study.charges.usd for study in campaign.studies):
                yield f"race-{axis}", race(campaign, axis, theme)
    if figure := confirmed(campaign, theme):
        yield "confirmed", figure
    for study in campaign.studies[:MOST_STAIRS]:
        if figure := staircase(campaign, study, theme, overlay):
            yield f"progress-{study.name}", figure
        if worths := attribution(campaign, study):
            yield f"attribution-{study.name}", attribution_bars(campaign, worths, theme)
    if knobs := importance(campaign):
        yield "importance", importance_bars(knobs, theme)
