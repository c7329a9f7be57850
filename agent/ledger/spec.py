"""What a study is: the settings enter when it is created, and must be the same when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from agent.records import Budget


@dataclass(frozen=True)
class StudySpec:
    """Everything that makes two studies comparable, or not.

    `details` holds further JSON: model names, a hash of the program, whatever must not change.
    `training_seeds` are in order of use: the first for every trial, the others for its re-runs.
    `versions` (packages, commit of the lab) may change between two sittings; all the rest may not.
    """

    searcher: str
    searcher_seed: int
    budget: Budget
    task: str
    direction: Literal["minimize", "maximize"] = "minimize"
    training_seeds: tuple[int, ...] = (0,)
    acceptance: str = ""
    sandbox: str = ""
    price_table: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def conflicts(self, other: StudySpec) -> dict[str, tuple[Any, Any]]:
        """The fields in which two specs differ, versions apart: name -> (mine, the other's)."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if name != "versions" and pair[0] != pair[1]}
