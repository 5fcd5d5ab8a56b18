"""How large values may be."""

from __future__ import annotations

import logging

from streamline.domain.payloads import Encoded
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
