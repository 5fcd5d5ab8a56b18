"""The root of all errors."""

from __future__ import annotations

from typing import ClassVar


class StreamlineError(Exception):
    """Root of the tree.

    Args:
        message: What is wrong and what is allowed.
        field: Path of the argument or value to blame, such as ``"retry.max_attempts"``.
    """

    code: ClassVar[str] = "streamline.error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str = "", *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
