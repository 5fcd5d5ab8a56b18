"""The only floor that knows MongoDB: statements as data, and one door through which they go."""

from streamline.store.connect import connect
from streamline.store.deployment import CALIBRATE_SECONDS, calibrate, check_deployment
from streamline.store.door import Store
from streamline.store.indexes import INDEXES, ensure_indexes, ensure_indexes_of
from streamline.store.operations import Inserted
from streamline.store.scope import EVERYTHING, UNTENANTED, Scope
from streamline.store.wakes import Wake, WakeChannel

__all__ = [
    "CALIBRATE_SECONDS",
    "EVERYTHING",
    "INDEXES",
    "UNTENANTED",
    "Inserted",
    "Scope",
    "Store",
    "Wake",
    "WakeChannel",
    "calibrate",
    "check_deployment",
    "connect",
    "ensure_indexes",
    "ensure_indexes_of",
]
