"""Which loop holds a study: an owner and the time enter, a claim or a refusal leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from agent.ledger.owner import Owner
from agent.ledger.storage import LedgerError

KEY = "holder"


def claim(study: optuna.Study, owner: str, now: float, lease_seconds: float) -> None:
    """Take the study; LedgerError naming the holder if another one is alive. `now` in Unix seconds.

    A holder on this host is dead when its process is; one on another host when it has not been `seen` for
    `lease_seconds`. Loops that start in the same instant are told apart by the lock on the study's folder.
    """
    holder = study.user_attrs.get(KEY)
    if holder and holder["owner"] != owner and _alive(holder, now, lease_seconds):
        raise LedgerError(
            f"study {study.study_name!r} is held by {holder['owner']} (host:pid:start time); "
            "stop that one first, or choose another study name"
        )
    seen(study, owner, now)


def seen(study: optuna.Study, owner: str, now: float) -> None:
    """Write that `owner` holds the study and was alive at `now`."""
    study.set_user_attr(KEY, {"owner": str(Owner.parse(owner)), "seen": now})


def release(study: optuna.Study, owner: str) -> None:
    """Give the study up, if `owner` holds it."""
    if (study.user_attrs.get(KEY) or {}).get("owner") == owner:
        study.set_user_attr(KEY, None)


def _alive(holder: Mapping[str, Any], now: float, lease_seconds: float) -> bool:
    alive = Owner.parse(holder["owner"]).alive()
    return now - holder["seen"] < lease_seconds if alive is None else alive
