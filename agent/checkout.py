"""A study and today's checkout go in; nothing comes out, or an error that says what has changed between the two.

A study's own code and configs stand on its branch, but what checks, seals and judges is the checkout's: after an
upgrade, the newer check may want keys that the older configs do not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.git import checked_out, is_changed
from agent.ledger import StudyLedger
from agent.ledger.spec import CHECKOUT
from agent.records import Value
from agent.task import Task
from agent.validation import Rejected, validate


class CheckoutChanged(RuntimeError):
    """Today's checkout does not accept a study of an earlier one; the message says what to do."""


def version(root: Path) -> str:
    """The commit that is checked out at `root`, with "-dirty" behind it where tracked files differ from it."""
    return checked_out(root) + ("-dirty" if is_changed(root) else "")


def require_accepted(
    ledger: StudyLedger, task: Task, root: Path, recipes: Sequence[Mapping[str, Value]]
) -> None:
    """Raises CheckoutChanged unless the checkout at `root` accepts what the study has run before.

    task: with the study's own tree. recipes: overrides of trials that have run.
    """
    for overrides in recipes:
        try:
            validate(task, overrides, {})
        except Rejected as error:
            first = ledger.reference()
            begun = ledger.spec.versions.get(CHECKOUT) or (first.commit if first else "unknown")
            raise CheckoutChanged(
                f"study {ledger.name} was begun at commit {begun}, and the checkout, now at {version(root)}, refuses "
                f"what it has run before: {error}\nNothing was run, and nothing is lost. Take the code that it was "
                f"begun with (git checkout --detach {begun.removesuffix('-dirty')}) and give the same command again, "
                "or begin a new study"
            ) from error
