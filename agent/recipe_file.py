"""A recipe's overrides go in; the config file that holds them on the study's branch, and how to run it, come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omegaconf import OmegaConf

from agent.records import Trial, Value
from agent.task import Task


def run_command(task: Task, base: Sequence[str]) -> str:
    """The command that runs the recipe of a checkout of the study's branch; `base` as the study had it."""
    return " ".join([*task.command, *base, task.recipe.select])


def how_to_run(study: str, task: Task, base: Sequence[str], best: Trial) -> str:
    """What a person types to run the study's best so far. Detached, since a study at work holds its branch."""
    if best.verdict is None or best.verdict.decision != "kept":
        return " ".join([*task.command, *base])
    return f"git checkout --detach lab/{study} && {run_command(task, base)}"


def recipe_text(task: Task, recipe: Mapping[str, Value]) -> str:
    """The overrides as a config file that `task.recipe.select` lays over the reference."""
    command = run_command(task, task.base)
    groups = [{f"override /{key}": recipe[key]} for key in sorted(recipe) if key in task.groups]
    nested: dict[str, object] = {"defaults": [*groups, "_self_"]} if groups else {}
    for key in sorted(recipe):
        if key not in task.groups:
            *sections, name = key.split(".")
            node = nested
            for section in sections:
                node = node.setdefault(section, {})  # type: ignore[assignment]
            node[name] = recipe[key]
    # OmegaConf quotes text that its own loader would take for a number ("1e5"); PyYAML does not
    body = OmegaConf.to_yaml(OmegaConf.create(nested)) if nested else ""
    return f"# @package _global_\n# Written by the lab. {command}\n{body}"
