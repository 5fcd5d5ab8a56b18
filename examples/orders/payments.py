"""Stands in for a payment provider: it fails at times, and charges a key once, however often it is asked."""

from __future__ import annotations

import asyncio
import random


class PaymentProvider:
    def __init__(self, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self.requests = 0
        self.charges: dict[str, int] = {}

    async def charge(self, key: str, amount: int) -> str:
        self.requests += 1
        await asyncio.sleep(0.02)
        if self._chance.random() < 0.2:
            raise ConnectionError("the provider is not there")
        self.charges.setdefault(key, amount)
        if self._chance.random() < 0.2:
            raise TimeoutError("the answer was lost, but the money has moved")
        return f"ch_{list(self.charges).index(key) + 1}"
