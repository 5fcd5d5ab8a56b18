"""Beanie documents over the engine's collections, to ask with: ``RunDocument.find(RunDocument.tenant_id == "acme")``.

Works with Beanie 2 where the app is on PyMongo's client, and with Beanie 1.30 where it is on Motor's.
"""

try:
    import beanie as _  # noqa: F401
except ModuleNotFoundError as _error:
    from streamline.errors import ExtraMissing

    raise ExtraMissing('streamline.odm needs Beanie; install "streamline-mongo[beanie]"', field="beanie") from _error

from streamline.odm.documents import EventDocument, RunDocument, ScheduleDocument, StoredLease, StoredStep
from streamline.odm.initialising import DOCUMENTS, init_odm
from streamline.odm.reading_only import EngineDocument, ReadOnlyCollection

__all__ = [
    "DOCUMENTS",
    "EngineDocument",
    "EventDocument",
    "ReadOnlyCollection",
    "RunDocument",
    "ScheduleDocument",
    "StoredLease",
    "StoredStep",
    "init_odm",
]
