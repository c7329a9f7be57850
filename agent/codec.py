"""Records to strict JSON and back: a frozen dataclass enters, dicts, lists and numbers leave.

Strict means: no NaN or Infinity literal, no unknown or doubled key, no value of another type than the
dataclass declares. A number that JSON has no word for is written as `{"$float": "nan"}`, so that a rejected
proposal with `lr=nan` can be kept as it was; a mapping's own key that begins with $ gets another one before it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
TAG = "$float"


class RecordError(ValueError):
    """JSON that is not the record it should be; the message names the place and the value."""


def to_json(record: Any, path: str = "record") -> Any:
    """Plain JSON values for a record, or for any nest of records, mappings, sequences and scalars."""
    if record is None or isinstance(record, bool | int | str):
        return record
    if isinstance(record, float):
        return record if math.isfinite(record) else {TAG: str(record)}
    if is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name), f"{path}.{f.name}") for f in fields(record)}
    if isinstance(record, Mapping):
        if wrong := [key for key in record if not isinstance(key, str)]:
            raise RecordError(f"{path}: the key {wrong[0]!r} is not a string; JSON objects have string keys")
        if _all_floats(record) and not any(key.startswith("$") for key in record):
            return dict(record)
        return {_marked(key): to_json(value, f"{path}.{key}") for key, value in record.items()}
    if isinstance(record, Sequence):
        return [to_json(value, f"{path}[{index}]") for index, value in enumerate(record)]
    raise RecordError(
        f"{path}: {record!r} is a {type(record).__name__}; records hold bool, int, float, str, None, "
        "mappings and sequences only (convert numpy and torch values with .item())"
    )


def from_json(kind: type[Record], data: Any, path: str = "") -> Record:
    """A `kind` (dataclass) from what `to_json` made of it. Missing keys take the dataclass's defaults.

    Raises RecordError for an unknown key, a missing one without default, or a value of the wrong type.
    """
    record: Record = _decode(kind, data, path or kind.__name__)
    return record


def loads(text: str) -> Any:
    """JSON text to values.

    Raises RecordError for NaN, Infinity, 1e999, doubled keys, half a surrogate pair, or nesting too deep.
    """
    try:
        values = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_doubled_keys
        )
        # half a surrogate pair is a string that no file or terminal takes; only an escape can bring one in
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode()
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return values


def _no_constant(word: str) -> Any:
    raise RecordError(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise RecordError(f"{digits} is too large for a number")
    return number


def _no_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise RecordError(f"the key {key!r} stands twice in one object; keep one")
        result[key] = value
    return result


def _all_floats(data: Mapping[Any, Any]) -> bool:
    """Whether there is nothing to convert, as in each of a curve's many points."""
    return all(type(value) is float and math.isfinite(value) for value in data.values())


def _marked(key: str) -> str:
    """No key of a proposal, whose words are a model's, may look like TAG."""
    return f"${key}" if key.startswith("$") else key


def _unmarked(key: str) -> str:
    return key[1:] if key.startswith("$$") else key


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode(hint: Any, data: Any, path: str) -> Any:
    if isinstance(data, dict) and data.keys() == {TAG}:
        data = _tagged(data[TAG], path)
    if is_dataclass(hint):
        return _decode_record(hint, data, path)
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return plain(data)
    if origin is Literal:
        if data in inner:
            return data
        raise RecordError(f"{path}: {data!r} is not one of {', '.join(map(repr, inner))}")
    if origin in (tuple, Sequence):
        _require(isinstance(data, list), path, data, "a list")
        return tuple(_decode(inner[0], value, f"{path}[{index}]") for index, value in enumerate(data))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _require(isinstance(data, dict), path, data, "an object")
        if inner[1] is float and _all_floats(data):
            return {_unmarked(key): value for key, value in data.items()}
        return {_unmarked(key): _decode(inner[1], value, f"{path}.{key}") for key, value in data.items()}
    if inner:
        return _decode_union(inner, data, path)
    return _decode_scalar(hint, data, path)


def _decode_record(kind: Any, data: Any, path: str) -> Any:
    _require(isinstance(data, dict), path, data, f"an object with the keys of {kind.__name__}")
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(data.keys() - known.keys()):
        raise RecordError(f"{path}: unknown key {unknown[0]!r}; allowed: {', '.join(known)}")
    for name, f in known.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise RecordError(f"{path}: the key {name!r} is missing")
    return kind(**{key: _decode(_hints(kind)[key], value, f"{path}.{key}") for key, value in data.items()})


def _decode_union(members: tuple[Any, ...], data: Any, path: str) -> Any:
    if data is None and type(None) in members:
        return None
    records = [member for member in members if is_dataclass(member)]
    if records:
        return _decode_record(records[0], data, path)
    if type(data) in members:
        return data
    if float in members and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    names = ", ".join(getattr(member, "__name__", str(member)) for member in members)
    raise RecordError(f"{path}: {data!r} is none of {names}")


def _decode_scalar(hint: Any, data: Any, path: str) -> Any:
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    _require(type(data) is hint, path, data, f"a {hint.__name__}")
    return data


def plain(data: Any) -> Any:
    """JSON values as they were before `to_json`, where no dataclass says what they are."""
    if isinstance(data, dict):
        if data.keys() == {TAG}:
            return _tagged(data[TAG], TAG)
        return {_unmarked(key): plain(value) for key, value in data.items()}
    return [plain(value) for value in data] if isinstance(data, list) else data


def _tagged(word: Any, path: str) -> float:
    _require(word in ("nan", "inf", "-inf"), path, word, "'nan', 'inf' or '-inf'")
    return float(word)


def _require(holds: bool, path: str, data: Any, wanted: str) -> None:
    if not holds:
        raise RecordError(f"{path}: expected {wanted}, got {data!r}")
