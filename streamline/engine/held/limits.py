"""How large values may be."""

from __future__ import annotations

import logging

from streamline.domain.payloads import Encoded
from streamline.engine.held.holding import Holding
from streamline.engine.runtime import Runtime
from streamline.errors import PayloadTooLarge

logger = logging.getLogger("streamline.engine")


def check_payload(runtime: Runtime, limit: int | None, encoded: Encoded, where: str) -> None:
    """Warn of a large value; raise `PayloadTooLarge` where it is over the workflow's or the app's limit."""
    allowed = runtime.settings.payload_max if limit is None else limit
    if encoded.size > allowed:
        raise PayloadTooLarge(
            f"{where} is {encoded.size:,} bytes, the limit is {allowed:,}; store it elsewhere and keep a reference",
            field=where,
        )
    if encoded.size > runtime.settings.payload_warn:
        logger.warning("%s is %s bytes: large values slow every write of the run", where, f"{encoded.size:,}")


def check_growth(runtime: Runtime, holding: Holding, encoded: Encoded, where: str, copies: int, instead: int) -> None:
    """Warn of a large value; raise `PayloadTooLarge` where it, or the run that would hold it, is over its limit.

    Args:
        runtime: The app's parts.
        holding: The run.
        encoded: The value.
        where: What it is, for people.
        copies: How many times the run would hold it.
        instead: Bytes of what it takes the place of.
    """
    check_payload(runtime, holding.definition.max_payload_bytes, encoded, where)
    if holding.run.get("size", 0) - instead + copies * encoded.size > runtime.settings.document_max:
        raise PayloadTooLarge(f"{where}: the run would grow too large to be written; store a reference", field=where)
