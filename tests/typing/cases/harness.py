"""The harness itself: a line both checkers accept, and mistakes both of them see under names of their own."""

from typing import assert_type


def length(text: str) -> int:
    return len(text)


assert_type(length("three"), int)

length(3)  # expect-error: arg-type / reportArgumentType
length("three").absent  # expect-error: attr-defined / reportAttributeAccessIssue
