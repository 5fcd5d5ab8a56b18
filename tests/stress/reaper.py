"""A seeded schedule of deaths: workers are killed at random instants and others take their place."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from tests.stress.fleet import Fleet


class Reaper:
    """Keeps a number of workers alive and kills them at random.

    Args:
        fleet: Their home.
        dice: Decides who dies and when.
        options: What each worker is begun with.
        size: How many are alive at a time.
        called: What their names begin with.
    """

    def __init__(
        self, fleet: Fleet, dice: random.Random, options: dict[str, Any], *, size: int, called: str = "worker"
    ) -> None:
        self._fleet = fleet
        self._dice = dice
        self._options = options
        self._called = called
        self._begun = 0
        self.deaths = 0
        self.alive = [self._begin() for _ in range(size)]

    def strike(self) -> None:
        """Kill one worker, now and then two at once, and begin as many others."""
        for _ in range(self._dice.choice((1, 1, 1, 2))):
            place = self._dice.randrange(len(self.alive))
            assert self._fleet.kill(self.alive[place]), f"{self.alive[place]} had ended by itself"
            self.deaths += 1
            self.alive[place] = self._begin()

    def rage(
        self, shortest: float, longest: float, *, until: Callable[[], bool], within: float, fewest: int = 0
    ) -> None:
        """Strike every now and then until something is so and so many have died."""
        deadline = time.monotonic() + within
        while not until() or self.deaths < fewest:
            assert time.monotonic() < deadline, f"not over within {within:g} s, {self.deaths} deaths"
            time.sleep(self._dice.uniform(shortest, longest))
            self.strike()

    def _begin(self) -> str:
        self._begun += 1
        return self._fleet.spawn(f"{self._called}{self._begun}", **self._options)
