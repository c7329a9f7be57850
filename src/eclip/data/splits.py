"""A pool of prints in, what each fold may learn from and is measured on out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eclip.data.batch import bucket
from eclip.data.pack import Pack

Index = npt.NDArray[np.int64]


def folds(count: int, fold_count: int = 3, seed: int = 42) -> list[tuple[Index, Index]]:
    """(train_index, val_index) of each fold over a pool of `count` prints.

    The pool is shuffled once with numpy's `default_rng(seed)` and cut into `fold_count` parts, the larger
    ones first; fold k validates on part k and learns from the other parts, in pool order as shuffled.
    """
    if not 2 <= fold_count <= count:
        raise ValueError(f"data.fold_count={fold_count}: use 2 to {count} for a pool of {count} prints")
    parts = np.array_split(np.random.default_rng(seed).permutation(count), fold_count)
    return [(np.concatenate(parts[:k] + parts[k + 1 :]), parts[k]) for k in range(fold_count)]


@dataclass(frozen=True)
class Orders:
    """In which orders the candidates are embedded: image row i is candidate image_N[i], text alike."""

    image_N: Index
    text_N: Index

    @classmethod
    def draw(cls, count: int, rng: np.random.Generator) -> Orders:
        return cls(rng.permutation(count), rng.permutation(count))


@dataclass(frozen=True)
class FoldData:
    """All that a run of one fold sees: pairs to learn from, and candidates apart, each side in its own order.

    `train_rows_N` are the rows of `train` to learn from. `val_captions_NL` is cut to the bucket of its
    longest caption, whatever the order. `orders` undoes the orders (`sealed.unseal`); a sealed run has none.
    `fold` is None when the candidates are a split of their own (the test set).
    """

    train: Pack
    train_rows_N: Index
    val_images_NHWC: npt.NDArray[np.uint8]
    val_captions_NL: npt.NDArray[np.int32]
    fold: int | None
    orders: Orders | None

    @property
    def candidates(self) -> int:
        return len(self.val_images_NHWC)

    @property
    def tokenizer_path(self) -> Path:
        return self.train.tokenizer_path

    @classmethod
    def from_pack(
        cls, pack: Pack, fold: int, *, fold_count: int = 3, split_seed: int = 42, order_seed: int
    ) -> FoldData:
        """Fold `fold` of an open pool; the orders are drawn from `order_seed`."""
        if not 0 <= fold < fold_count:
            raise ValueError(f"data.folds: no fold {fold} among {fold_count}")
        train_index, val_index = folds(len(pack), fold_count, split_seed)[fold]
        return cls._open(pack, train_index, pack, val_index, fold, order_seed)

    @classmethod
    def from_test(cls, pool: Pack, test: Pack, *, order_seed: int) -> FoldData:
        """Everything in the pool to learn from, the test split (with the pool's tokenizer) to measure."""
        check_same_vocabulary(pool, test)
        return cls._open(pool, np.arange(len(pool)), test, np.arange(len(test)), None, order_seed)

    @classmethod
    def from_everything(cls, pool: Pack) -> FoldData:
        """Everything in the pool to learn from and nothing to measure (data.fold=all)."""
        nothing = Orders(np.arange(0), np.arange(0))
        return cls(pool, np.arange(len(pool)), pool.images_NHWC[:0], pool.captions_NL[:0], None, nothing)

    @classmethod
    def _open(
        cls, train: Pack, train_index: Index, val: Pack, val_index: Index, fold: int | None, order_seed: int
    ) -> FoldData:
        orders = Orders.draw(len(val_index), np.random.default_rng(order_seed))
        images_NHWC = np.take(val.images_NHWC, val_index[orders.image_N], axis=0)
        captions_NL = trim(np.take(val.captions_NL, val_index[orders.text_N], axis=0))
        return cls(train, train_index, images_NHWC, captions_NL, fold, orders)


def trim(tokens_NL: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The same tokens without the columns that are padding in every row, up to the next bucket."""
    longest = int((tokens_NL != 0).sum(axis=1).max())
    return np.ascontiguousarray(tokens_NL[:, : bucket(longest, tokens_NL.shape[1])])


def check_same_vocabulary(pool: Pack, other: Pack) -> None:
    if pool.tokenizer_path.read_bytes() != other.tokenizer_path.read_bytes():
        raise ValueError(
            f"{other.directory} was tokenised by another tokenizer than {pool.directory}: "
            f"pack it with tokenizer={pool.tokenizer_path}"
        )
