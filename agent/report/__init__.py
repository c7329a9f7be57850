"""The report: the ledgers of studies enter; tables, figures, a verdict in plain words and a page leave."""

from agent.report.campaign import Campaign, Study, load

__all__ = ["Campaign", "Study", "load"]
