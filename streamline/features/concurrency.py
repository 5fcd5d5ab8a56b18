"""Slots of a concurrency limit: which numbers a run may take, given those that are taken."""

from __future__ import annotations

from collections.abc import Collection


def free_slots(taken: Collection[int], limit: int) -> list[int]:
    """Return the numbers from 0 that may be taken without more than `limit` runs holding one.

    Where a higher limit has left numbers past the present one, that many fewer are free: of the numbers from the
    returned bound on, nobody takes any, so those that are taken there only become fewer, and together with all below
    it they are at most `limit`, whatever others take at the same time.
    """
    bound, beyond = limit, sum(number >= limit for number in taken)
    while bound > 0 and bound + beyond > limit:
        bound -= 1
        beyond += bound in taken
    return [number for number in range(bound) if number not in taken]
