"""What a batch is: the shapes legend of the whole package, the keys of a batch, and its token lengths.

Shapes are suffixes of names, one letter an axis, slowest first:

    B batch          N prints or candidates     M phrases of all prints
    C channels       H W pixels                 P patches
    R boxes of a print, padded                  L tokens, padded with 0
    D embedding      F features of a backbone

so `image_BCHW` is a batch of images and `boxes_NR4` holds every print's boxes. Digits are sizes.

A batch is a dict of tensors. As read from the pack (`datamodule`):

    image_BHWC   uint8
    caption_BL   int64, [CLS] first, [SEP] last, 0 = padding
    phrase_BL    int64, one of the print's region phrases
    boxes_BR4    float32, x1 y1 x2 y2 as shares of the print's width and height
    valid_BR     bool, which boxes are there

and as a model takes it (`augment.prepare`): image_BCHW (float32, normalised) and heatmap_BHW in the place
of image_BHWC, the rest alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Batch: TypeAlias = "dict[str, Tensor]"

PADDING = 0

# few lengths mean few shapes: a compiled model is compiled at most once for each
TOKEN_BUCKETS = (8, 16, 24, 32, 40, 48, 64, 96, 128)


@dataclass(frozen=True)
class Share:
    """One process's contiguous part of the rows that `ranks` processes hold together; by default all of them.

    What is drawn at random for rows is drawn for all of them and cut, so that a row's draws do not depend on
    how many processes share the batch.
    """

    rank: int = 0
    ranks: int = 1

    def of(self, rows: int) -> slice:
        """The own ones of all `rows`. ValueError where they cannot be shared evenly."""
        if rows % self.ranks:
            raise ValueError(f"{rows} prints a step cannot be shared by {self.ranks} devices: use a multiple")
        size = rows // self.ranks
        return slice(self.rank * size, (self.rank + 1) * size)


WHOLE = Share()


def bucket(length: int, longest: int) -> int:
    """The least bucket that holds `length` tokens, and no more than the `longest` that the pack holds."""
    return next((size for size in TOKEN_BUCKETS if length <= size <= longest), longest)
