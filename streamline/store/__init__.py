"""The only floor that knows MongoDB: statements as data, and one door through which they go."""

from streamline.store.connect import connect
from streamline.store.deployment import CALIBRATE_SECONDS, calibrate, check_deployment
from streamline.store.door import Store
from streamline.store.index_check import IndexIssue
from streamline.store.indexes import INDEXES, check_indexes, ensure_indexes, ensure_indexes_of
from streamline.store.operations import Inserted
from streamline.store.scope import EVERYTHING, UNTENANTED, Scope
from streamline.store.wakes import Wake, WakeChannel

__all__ = [
    "CALIBRATE_SECONDS",
    "EVERYTHING",
    "INDEXES",
    "UNTENANTED",
    "IndexIssue",
    "Inserted",
    "Scope",
    "Store",
    "Wake",
    "WakeChannel",
    "calibrate",
    "check_deployment",
    "check_indexes",
    "connect",
    "ensure_indexes",
    "ensure_indexes_of",
]
