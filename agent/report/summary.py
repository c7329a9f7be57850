"""A campaign goes in, a summary in Markdown for a pull request comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.report.accounts import Account, accounts
from agent.report.campaign import Campaign
from agent.report.page.tables import all_marks
from agent.report.verdict import verdict
from agent.report.words import duration, share, span

MOST_ROWS = 40


def summary(campaign: Campaign, figure: str = "") -> str:
    """The verdict, its sentences, the marks and a table of studies. `figure`: an image's address, if any."""
    said, rows = verdict(campaign), accounts(campaign)
    lines = [
        f"### {_plain(said.headline)}",
        "",
        *(f"- {_plain(sentence)}" for sentence in said.sentences),
        "",
    ]
    if marks := all_marks(campaign, rows):
        lines += ["> **Note**", *(f"> {_plain(mark)}  " for mark in marks), ""]
    if figure:
        lines += [f"![The race]({figure})", ""]
    return "\n".join(lines + _table(campaign, rows)) + "\n"


def _table(campaign: Campaign, rows: Sequence[Account]) -> list[str]:
    lines = [
        "| study | trials | kept | failed | in search | confirmed | 95 % interval | charged |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows[:MOST_ROWS]:
        final, charges = row.final, row.study.charges
        promised, held = (final.promised, final.confirmed) if final else (None, None)
        interval = span(campaign, *final.interval) if final and final.interval else "–"
        cells = [
            row.study.name,
            str(len(row.study.proposals)),
            str(row.kept),
            f"{100 * row.failed:.0f} %",
            *("–" if gain is None else share(campaign, gain) for gain in (promised, held)),
            interval,
            duration(charges.seconds) + (f", ${charges.usd:.2f}" if charges.usd else ""),
        ]
        lines.append(f"| {' | '.join(map(_plain, cells))} |")
    return lines + ([f"\n… and {len(rows) - MOST_ROWS} more studies."] if len(rows) > MOST_ROWS else [])


def _plain(text: str) -> str:
    """One line in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))
