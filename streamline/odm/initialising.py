"""Letting the documents ask the database of an app."""

from __future__ import annotations

from typing import Any, Final

import beanie

from streamline.app import Streamline
from streamline.errors import ExtraMissing
from streamline.odm.documents import EventDocument, RunDocument, ScheduleDocument
from streamline.odm.reading_only import EngineDocument

DOCUMENTS: Final[tuple[type[EngineDocument], ...]] = (RunDocument, ScheduleDocument, EventDocument)


async def init_odm(app: Streamline, *, database: Any = None) -> None:
    """Let the documents ask the database of an open app, until another app is given.

    No index is created or dropped: they are the engine's. Beanie's models of your own are initialised as ever, by
    ``beanie.init_beanie``, before or after.

    Args:
        app: The app.
        database: The same database through another client, where Beanie needs that of the other driver, or reads are
            to go to secondaries; default that of the app.

    Raises:
        AppClosed: The app is not open.
        ExtraMissing: Beanie 2 is for PyMongo's client, Beanie 1 for Motor's, and the other one is installed.
    """
    database = app.database if database is None else database
    is_motor, is_for_motor = type(database).__module__.startswith("motor."), int(beanie.__version__.split(".")[0]) < 2
    if is_motor != is_for_motor:
        wanted, given = ("beanie>=1.30,<2", "Motor") if is_motor else ("beanie>=2,<3", "PyMongo")
        raise ExtraMissing(f'database: it is of {given}; install "{wanted}", or give another', field="database")
    for document in DOCUMENTS:
        document.Settings.name = f"{app.prefix}.{document.collection}"
    await beanie.init_beanie(database=database, document_models=list(DOCUMENTS), skip_indexes=True)
