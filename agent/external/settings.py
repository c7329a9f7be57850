"""Hydra words go in, the settings of external studies come out: those of a new one, or as one was begun.

A study keeps its words in runs/<study>/external.json, so that it is resumed by its name alone, from MCP as from
a shell. A client chooses the name and nothing else: what a study may use is the choice of the person who starts
the server.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agent.composition import composed_file
from agent.ledger import Ledger, LedgerError
from agent.searchers.external import NAME
from agent.study import open_ledger
from agent.workspace import WorkspaceError, check_name

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OWN = ("study", "searcher", "searcher_name", "budget_name")


class SettingsError(ValueError):
    """The words cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Settings:
    """root: the checkout that holds the task. words: Hydra overrides of configs/sweep.yaml for new studies."""

    root: Path
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.words:
            key = re.split(r"[=@]", word.lstrip("+~"))[0]
            if key in OWN:
                raise SettingsError(f"{word}: {key} is set for every external study; leave it out")

    @property
    def default(self) -> str:
        """The name of a study that is begun without one."""
        return f"{NAME}-{self.new.budget_name}-{self.new.seed}"

    @cached_property
    def new(self) -> DictConfig:
        """The settings of a study that is yet to be begun, but for its name. Raises CompositionError."""
        return self._composed("unnamed", self.words)

    def config(self, study: str) -> DictConfig:
        """The settings of a study, as it was begun if it was. Raises SettingsError for a bad name."""
        file = self.folder(study) / "external.json"
        words = tuple(json.loads(file.read_text("utf-8"))["words"]) if file.is_file() else self.words
        return self._composed(study, words)

    def folder(self, study: str) -> Path:
        """runs/<study>/."""
        try:
            check_name(study)
        except WorkspaceError as error:
            raise SettingsError(str(error)) from None
        return self.root / _said(self.words, "runs") / study

    def keep(self, study: str) -> None:
        """Writes down the words that a study is begun with."""
        file = self.folder(study) / "external.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"words": self.words}), "utf-8")
        part.replace(file)

    @cached_property
    def ledgers(self) -> Ledger:
        """The ledger of all studies."""
        return open_ledger(self.new, self.root)

    def studies(self) -> list[str]:
        """The external studies in the ledger."""
        ledgers = self.ledgers
        return [name for name in ledgers.studies() if ledgers.study(name).spec.searcher == NAME]

    def require_external(self, study: str) -> None:
        """Raises LedgerError for a study that is not there, or is another searcher's."""
        known = self.studies()
        if study not in known:
            shown = ", ".join(known) or "none yet"
            raise LedgerError(f"no external study {study!r} in the ledger; there are: {shown}")

    def _composed(self, study: str, words: tuple[str, ...]) -> DictConfig:
        own = (f"searcher={NAME}", f"searcher_name={NAME}", f"study={study}", f"budget_name={_budget(words)}")
        return composed_file(CONFIGS, "sweep", [*words, *own])


def _budget(words: tuple[str, ...]) -> str:
    """The name of the budget that the words choose; what `${hydra:runtime.choices.budget}` is to a sweep."""
    defaults = _sweep()["defaults"]
    standard = next(choice["budget"] for choice in defaults if "budget" in choice)
    return _said(words, "budget", standard)


def _said(words: tuple[str, ...], key: str, standard: str = "") -> str:
    """A plain setting, without composing the config: that takes longer than most commands."""
    chosen = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    return chosen[-1] if chosen else standard or str(_sweep()[key])


@cache
def _sweep() -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "sweep.yaml"), resolve=False)
    return dict(plain)
