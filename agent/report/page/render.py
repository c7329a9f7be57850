"""A campaign goes in, the page comes out: one HTML file with its figures, styles and script, and no requests.

Hypotheses, logs and edits were written by programs that nobody trusts: the template escapes every text, and
the page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from agent.report.accounts import accounts
from agent.report.attribution import attribution
from agent.report.best_so_far import AXES, relative
from agent.report.campaign import Campaign
from agent.report.comparison import pairs
from agent.report.figures.bars import attribution_bars, importance_bars
from agent.report.figures.confirmed import confirmed
from agent.report.figures.race import race
from agent.report.figures.style import THEMES, for_page
from agent.report.importance import importance
from agent.report.page import tables, trials
from agent.report.text import line
from agent.report.verdict import verdict

HERE = Path(__file__).parent
AXIS_NAMES = {"trials": "by trials", "seconds": "by charged time", "usd": "by dollars"}


def page(campaign: Campaign, made: str, links: Mapping[str, str] | None = None, overlay: bool = False) -> str:
    """The HTML. made: when, in words. links: name -> https address (W&B groups, say). overlay: published run.

    Raises ValueError for a link that is not https.
    """
    for name, url in (links or {}).items():
        if not url.startswith("https://"):
            raise ValueError(f"links.{name}={url!r}: expected an address that begins with https://")
    script = (HERE / "script.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=_title(campaign),
        made=made,
        links=links or {},
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **_content(campaign, overlay),
    )


def _content(campaign: Campaign, overlay: bool) -> dict[str, Any]:
    rows, found = accounts(campaign), pairs(campaign)
    spent = any(row.study.charges.usd for row in rows)
    return {
        "verdict": verdict(campaign),
        "marks": tables.all_marks(campaign, rows),
        "race": _race(campaign, spent),
        "no_dollars": not spent,
        "searchers": campaign.searchers,
        "studies": tables.studies(campaign, rows),
        "test_names": tables.test_names(rows),
        "pairs": tables.tests(campaign, found),
        "wins": tables.wins(campaign, found),
        "levels": tables.levels(campaign) if overlay else [],
        "rates": tables.rates(campaign),
        "figures": _figures(campaign),
        "details": trials.studies(campaign, overlay),
    }


def _title(campaign: Campaign) -> str:
    if len(campaign.studies) == 1:
        return f"{campaign.task}: {campaign.studies[0].name}"
    return f"{campaign.task}: {', '.join(campaign.searchers)}"


def _race(campaign: Campaign, dollars: bool) -> list[dict[str, Any]]:
    if not any(len(relative(study, "trials")[0]) for study in campaign.studies):
        return []
    theme = THEMES["page"]
    return [
        {"key": axis, "name": AXIS_NAMES[axis], "svg": _svg(race(campaign, axis, theme), f"race-{axis}")}
        for axis in AXES
        if axis != "usd" or dollars
    ]


def _figures(campaign: Campaign) -> list[dict[str, Any]]:
    theme, found = THEMES["page"], []
    if figure := confirmed(campaign, theme):
        found.append(("Confirmed on fresh seeds", figure, ""))
    for study in campaign.studies:
        if worths := attribution(campaign, study):
            unproven = [line(worth.change) for worth in worths if worth.unproven]
            note = f"Not shown to be needed, nor to be needless: {'; '.join(unproven)}." if unproven else ""
            found.append(
                (f"What each change is worth: {study.name}", attribution_bars(campaign, worths, theme), note)
            )
    if knobs := importance(campaign):
        found.append(("Knobs", importance_bars(knobs, theme), ""))
    return [
        {"name": name, "svg": _svg(figure, f"figure-{number}"), "note": note}
        for number, (name, figure, note) in enumerate(found)
    ]


def _svg(figure: Figure, salt: str) -> Markup:
    title = figure.texts[0].get_text() if figure.texts else salt
    return Markup(for_page(figure, salt, title))
