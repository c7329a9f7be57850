"""The storage behind all studies: an Optuna URL enters, study ledgers leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

from agent.codec import to_json
from agent.ledger.spec import StudySpec

if TYPE_CHECKING:
    from agent.ledger.study import StudyLedger

# how long a writer waits for another one's transaction; SQLite lets one write at a time
SQLITE_WAIT_SECONDS = 60
SPEC = "spec"


class LedgerError(RuntimeError):
    """The ledger cannot do what was asked; the message names the study or trial and what to do."""


class Ledger:
    """One Optuna storage for all studies of all searchers. Safe for several processes at once."""

    def __init__(self, storage: RDBStorage, clock: Callable[[], float]) -> None:
        self.storage = storage
        self.clock = clock

    @classmethod
    def open(cls, url: str, clock: Callable[[], float] = time.time) -> Ledger:
        """Open, or create, the storage at `url`: `sqlite:///runs/ledger.db`, `postgresql://…`.

        `clock` gives Unix seconds. Raises LedgerError where the URL is malformed or nothing answers there.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise LedgerError(f"ledger={url!r} is no URL such as sqlite:///runs/ledger.db") from error
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite":
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            engine: dict[str, Any] = {"connect_args": {"timeout": SQLITE_WAIT_SECONDS}}
        else:
            # a server may have dropped the connection while a trial ran for minutes
            engine = {"pool_pre_ping": True}
        storage = _connect(
            parsed.render_as_string(hide_password=False), parsed.render_as_string(hide_password=True), engine
        )
        if parsed.get_backend_name() == "sqlite":
            event.listen(storage.engine, "connect", _journal)
            storage.engine.dispose()  # connections made before the listener
        return cls(storage, clock)

    def study(self, name: str, *, create: StudySpec | None = None) -> StudyLedger:
        """The study `name`. With `create` it is made if it is not there, and must have that spec if it is.

        Raises LedgerError for an unknown study (naming those there are) or another spec (naming the fields).
        """
        from agent.ledger.study import StudyLedger

        try:
            study = optuna.load_study(study_name=name, storage=self.storage)
        except KeyError:
            if create is None:
                known = ", ".join(self.studies()) or "none yet"
                raise LedgerError(f"study {name!r} is not in the ledger; there are: {known}") from None
            study = self._create(name, create)
        if SPEC not in study.user_attrs:
            if create is None or study.get_trials(deepcopy=False):
                raise LedgerError(f"study {name!r} was not begun by this lab; choose another name")
            # a process died between the two writes below
            study.set_user_attr(SPEC, to_json(create))
        return StudyLedger(study, self.clock, expected=create)

    def studies(self) -> list[str]:
        """The names of the studies begun by this lab, in order of creation."""
        found = self.storage.get_all_studies()
        return [s.study_name for s in found if SPEC in self.storage.get_study_user_attrs(s._study_id)]

    def _create(self, name: str, spec: StudySpec) -> optuna.Study:
        with _quiet():
            study = optuna.create_study(
                study_name=name, storage=self.storage, direction=spec.direction, load_if_exists=True
            )
        return study


def _journal(connection: Any, _: Any) -> None:
    """Write ahead: readers (dashboard, status) never wait, and a write waits for no disk.

    What was written survives kill -9 of every process; after a power cut the last writes may be missing.
    """
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _connect(url: str, shown: str, engine: dict[str, Any]) -> RDBStorage:
    """Two processes may create the tables of a fresh database at once: the loser simply looks again."""
    for attempt in range(10):
        try:
            with _quiet():
                return RDBStorage(url, engine_kwargs=engine)
        except (OperationalError, ProgrammingError, IntegrityError) as error:
            if not any(word in str(error).lower() for word in ("already exists", "unique")):
                raise LedgerError(f"the ledger at {shown} does not open: {error.orig}") from error
            time.sleep(0.1 * (attempt + 1))
        except ImportError as error:
            raise LedgerError(f"{shown} needs a driver: pip install 'kento[postgres]'") from error
    raise LedgerError(f"the ledger at {shown} could not be created; is another process creating it?")


class _quiet:
    """Optuna reports each study it creates on stderr, in the middle of the table that a person watches."""

    def __enter__(self) -> None:
        self.level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def __exit__(self, *_: object) -> None:
        optuna.logging.set_verbosity(self.level)
