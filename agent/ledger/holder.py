"""Which loop holds a study, by a row in the ledger's database: a claim enters, a lease or a refusal leaves.

A claim is one statement, so of two machines that claim at the same time one is refused. A lease ends by the
database's clock, unless its holder renews it; pids are compared on one machine only, where a dead holder is seen
at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from agent.ledger.owner import Owner
from agent.ledger.storage import LedgerError

LEASE_SECONDS = 60.0
BEATS = 4  # renewals within a lease
NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "extract(epoch from clock_timestamp())",
}


@dataclass(frozen=True)
class Lease:
    """A study's holder. seen: seconds since it renewed the lease; left: seconds until that ends.

    at: its own monotonic clock when it did, comparable with the `at` of what it noted in the ledger.
    """

    owner: str
    seen: float
    left: float
    at: float

    def alive(self) -> bool:
        """Whether it may still work: its process runs here, or its lease has not ended elsewhere."""
        here = Owner.parse(self.owner).alive()
        return self.left > 0 if here is None else here


class Leases:
    """All leases of one database; the table is made when a study is first claimed."""

    def __init__(self, engine: sql.Engine) -> None:
        self.engine = engine
        if engine.dialect.name not in NOW:
            raise LedgerError(f"a ledger on {engine.dialect.name}: expected sqlite:/// or postgresql://")
        self.now = NOW[engine.dialect.name]
        self._made = False

    def of(self, study: int) -> Lease | None:
        """Who holds the study; None if nobody does. Reads only."""
        query = f"SELECT owner, {self.now} - seen, expires - {self.now}, at FROM kento_leases WHERE study_id = :study"
        if not self._made and not sql.inspect(self.engine).has_table("kento_leases"):
            return None
        self._made = True
        with self.engine.connect() as connection:
            row = connection.execute(sql.text(query), {"study": study}).first()
        return None if row is None else Lease(row[0], float(row[1]), float(row[2]), float(row[3]))

    def claim(self, study: int, name: str, owner: str, seconds: float) -> Lease | None:
        """Takes the study; returns the lease of a dead holder that it was taken from.

        Raises LedgerError naming a holder that lives.
        """
        before = self.of(study)
        if before and before.owner != owner and before.alive():
            raise _held(name, before)
        self._make()
        # only from the holder that was looked at, or from one whose lease has ended meanwhile
        taken = self._write(
            f"""INSERT INTO kento_leases (study_id, owner, seen, expires, at)
            VALUES (:study, :owner, {self.now}, {self.now} + :seconds, :at)
            ON CONFLICT (study_id) DO UPDATE SET owner = :owner, seen = {self.now},
            expires = {self.now} + :seconds, at = :at
            WHERE kento_leases.owner IN (:owner, :dead) OR kento_leases.expires < {self.now}""",
            study=study, owner=owner, seconds=seconds, at=time.monotonic(), dead=before.owner if before else "",
        )  # fmt: skip
        if not taken:
            holder = self.of(study)
            raise (
                _held(name, holder) if holder else LedgerError(f"study {name!r} is being claimed; try again")
            )
        return before if before and before.owner != owner else None

    def renew(self, study: int, name: str, owner: str, seconds: float) -> None:
        """Holds the study for another `seconds`. Raises LedgerError if it is no longer ours."""
        statement = f"""UPDATE kento_leases SET seen = {self.now}, expires = {self.now} + :seconds, at = :at
            WHERE study_id = :study AND owner = :owner"""
        if not self._write(statement, study=study, owner=owner, seconds=seconds, at=time.monotonic()):
            holder = self.of(study)
            now = f"{holder.owner} holds it" if holder else "nobody holds it now"
            raise LedgerError(
                f"study {name!r} is no longer held by {owner}, which let its lease of {seconds:g} s end; {now}"
            )

    def release(self, study: int, owner: str) -> None:
        """Gives the study up, if `owner` holds it."""
        if self.of(study):
            statement = "DELETE FROM kento_leases WHERE study_id = :study AND owner = :owner"
            self._write(statement, study=study, owner=owner)

    def _write(self, statement: str, **values: object) -> int:
        with self.engine.begin() as connection:
            return connection.execute(sql.text(statement), values).rowcount

    def _make(self) -> None:
        """Two processes may make the table at once: the loser finds it there."""
        try:
            self._write(
                """CREATE TABLE IF NOT EXISTS kento_leases (study_id INTEGER PRIMARY KEY, owner TEXT NOT NULL,
                seen DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION NOT NULL, at DOUBLE PRECISION NOT NULL)"""
            )
        except (IntegrityError, ProgrammingError):
            if not sql.inspect(self.engine).has_table("kento_leases"):
                raise


class Keeper:
    """Renews a lease from a thread of its own while in its `with` block; `lost` is told once if it is gone.

    A database that does not answer is asked again: whether the lease outlived that is for it to say.
    """

    def __init__(self, renew: Callable[[], None], lost: Callable[[str], None], every: float) -> None:
        self.renew, self.lost, self.every = renew, lost, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def _beat(self) -> None:
        while not self._over.wait(self.every):
            try:
                self.renew()
            except LedgerError as error:
                self.lost(str(error))
                return
            except SQLAlchemyError:
                continue

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _held(name: str, holder: Lease) -> LedgerError:
    until = f", seen {holder.seen:.0f} s ago, for another {max(holder.left, 0):.0f} s unless it renews that"
    return LedgerError(
        f"study {name!r} is held by {holder.owner} (machine:pid:start time{until}); "
        "stop that one first, or choose another study name"
    )
