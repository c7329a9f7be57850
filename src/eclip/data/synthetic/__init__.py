"""The embedded data set: prints in the manner of ukiyo-e, drawn and described by this package."""

from eclip.data.synthetic.dataset import DatasetSummary, draw_dataset

__all__ = ["DatasetSummary", "draw_dataset"]
