"""A trial's curve enters as points and lies in the ledger packed, a text a quantity; points or one quantity leave.

A study of 1,000 trials holds 600,000 points, which all who open it would parse, and nearly all for nothing. Packed
they are a sixth of the size, are written in the same row as the score, and go with it to whichever machine reads
the ledger; a text is unpacked when somebody asks for it. Ledgers that hold points as JSON read as they did.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from agent.codec import RecordError

Point = Mapping[str, float]


class PackedCurve(Sequence[Point]):
    """Points as they were packed. `data`: {"points": how many, "packed": {quantity: text}}.

    A text is base64 of deflated JSON: one value a point, null where the point lacks the quantity. Unpacking raises
    RecordError for a text that is none of `pack`'s. Nothing that is unpacked is kept.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data

    def column(self, name: str) -> list[float | None]:
        """One quantity, a value a point; None where a point lacks it."""
        if name not in self.data["packed"]:
            return [None] * len(self)
        try:
            found: list[float | None] = json.loads(zlib.decompress(b64decode(self.data["packed"][name])))
        except (ValueError, zlib.error) as error:
            raise RecordError(f"the ledger holds a damaged curve: {name}: {error}") from error
        if len(found) != len(self):
            raise RecordError(f"the ledger holds a damaged curve: {name}: {len(found)} of {len(self)} points")
        return found

    def __len__(self) -> int:
        return int(self.data["points"])

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points())

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Point]: ...
    def __getitem__(self, index: int | slice) -> Point | Sequence[Point]:
        return self._points()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and self._points() == list(other)

    def __repr__(self) -> str:
        return f"PackedCurve({len(self)} points: {', '.join(self.data['packed'])})"

    def _points(self) -> list[Point]:
        names = list(self.data["packed"])
        rows = zip(*map(self.column, names), strict=True) if names else [()] * len(self)
        return [{k: v for k, v in zip(names, row, strict=True) if v is not None} for row in rows]


def pack(curve: Sequence[Point]) -> Any:
    """The JSON of a curve for the ledger; of one without points, an empty list."""
    if isinstance(curve, PackedCurve) or not curve:
        return curve.data if isinstance(curve, PackedCurve) else []
    names = dict.fromkeys(name for point in curve for name in point)
    return {
        "points": len(curve),
        "packed": {name: _packed([point.get(name) for point in curve]) for name in names},
    }


def column(curve: Any, name: str) -> list[Any]:
    """One quantity of a curve as it lies in a ledger, packed or, in earlier ones, as points."""
    return PackedCurve(curve).column(name) if isinstance(curve, Mapping) else [p.get(name) for p in curve]


def _packed(values: Sequence[float | None]) -> str:
    return b64encode(zlib.compress(json.dumps(values, separators=(",", ":")).encode())).decode()
