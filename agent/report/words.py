"""Numbers and names go in, the words of a sentence come out."""

from __future__ import annotations

from collections.abc import Sequence

from agent.report.campaign import Campaign

SPACE = "\u00a0"  # a number and its unit stay on one line


def share(campaign: Campaign, gain: float) -> str:
    """A gain in words: "12.3 %" on a log scale, "0.0123" on a linear one."""
    value = campaign.ratio(gain)
    return f"{signed(100 * value, '.1f')}{SPACE}%" if campaign.scale == "log" else signed(value, ".4g")


def compared(campaign: Campaign, gain: float) -> str:
    """A gain as a comparison: "12.3 % better", "1.2 % worse", "no better"."""
    size = share(campaign, abs(gain) if gain > 0 else -abs(gain))
    if not any(digit in size for digit in "123456789"):
        return "no better"
    return f"{size} better" if gain > 0 else f"{size.removeprefix('−')} worse"


def span(campaign: Campaign, low: float, high: float) -> str:
    """An interval in words: "−1.2 to 4.5 %"."""
    return f"{share(campaign, low).removesuffix(f'{SPACE}%')} to {share(campaign, high)}"


def duration(seconds: float | None) -> str:
    """Seconds in words: "48 s", "12 min", "3.4 h"."""
    value = seconds or 0.0
    if value < 120:
        return f"{value:.0f}{SPACE}s"
    return f"{value / 60:.0f}{SPACE}min" if value < 7200 else f"{value / 3600:.1f}{SPACE}h"


def signed(value: float, form: str) -> str:
    """A number with a real minus sign, and none before a zero."""
    text = f"{value:{form}}"
    return text.replace("-", "−") if float(text) else text.replace("-", "")


def count(number: int, one: str, many: str) -> str:
    """A number with its noun: "1 study", "3 studies"."""
    return f"{number} {one if number == 1 else many}"


def spread(values: Sequence[int]) -> str:
    """Whole numbers from the least to the greatest: "3", "3 to 5"."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
