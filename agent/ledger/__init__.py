"""The ledger: what studies do enters one Optuna storage, and leaves as full records, also after kill -9."""

from agent.ledger.owner import Owner
from agent.ledger.spec import StudySpec
from agent.ledger.storage import Ledger, LedgerError
from agent.ledger.study import StudyLedger

__all__ = ["Ledger", "LedgerError", "Owner", "StudyLedger", "StudySpec"]
