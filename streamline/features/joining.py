"""Joins of children: which ones a parent starts, and when it has waited for enough of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamline.domain.statuses import TERMINAL
from streamline.errors import InvalidPolicy

JoinPolicy = Literal["all", "any", "race", "settled"] | int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a join stands.

    Args:
        met: Whether enough of the children have ended.
        failed: Whether it can only fail; the children that say so come first in `decisive`.
        decisive: The children that decided it, by their place in the join.
    """

    met: bool
    failed: bool = False
    decisive: tuple[int, ...] = ()


def child_id(parent: Mapping[str, Any], fan: str, name: str) -> str:
    """Return the id of a child: the same at each re-entry, another one where the parent's step is done again.

    It holds something of the parent's birth, so that nobody can take it before the child is there.
    """
    known = (parent["_id"], parent["born"], fan, name)
    digest = hashlib.sha256("\0".join(known).encode()).hexdigest()[:24]
    return f"{parent['_id'][:200]}.{digest}"


def check_policy(policy: object, count: int) -> JoinPolicy:
    """Return the policy if it can be met by so many children; raise `InvalidPolicy` otherwise."""
    if policy in ("all", "any", "race", "settled"):
        return policy
    if isinstance(policy, bool) or not isinstance(policy, int) or not 1 <= policy <= count:
        raise InvalidPolicy('policy: "all", "any", "race", "settled" or a number of children', field="policy")
    return policy


def standing(children: Sequence[Mapping[str, Any]], policy: JoinPolicy) -> Standing:
    """Return how a join of these children, in the order of the join, stands."""
    ended = [i for i, child in enumerate(children) if child["status"] in TERMINAL]
    done = [i for i in ended if children[i]["status"] == "done"]
    bad = [i for i in ended if children[i]["status"] != "done"]
    first = sorted(ended, key=lambda i: (children[i]["ended_at"], i))
    if policy == "settled":
        return Standing(len(ended) == len(children), decisive=tuple(ended))
    if policy == "race":
        return Standing(bool(ended), bool(ended) and first[0] in bad, tuple(first[:1]))
    if policy == "all" and bad:
        return Standing(True, True, tuple(i for i in first if i in bad))
    wanted = len(children) if policy == "all" else 1 if policy == "any" else int(policy)
    if len(done) >= wanted:
        return Standing(True, decisive=tuple(i for i in first if i in done)[:wanted])
    hopeless = len(children) - len(bad) < wanted
    return Standing(hopeless, hopeless, tuple(i for i in first if i in bad))


def is_news(policy: JoinPolicy, *, done: bool) -> bool:
    """Return whether the end of one child may decide a join, whatever the others do; the end of all always does."""
    if policy == "race":
        return True
    return done if policy == "any" else not done and policy == "all"
