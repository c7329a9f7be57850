"""The page: a campaign enters, one HTML file that needs no network leaves."""

from agent.report.page.render import page

__all__ = ["page"]
