"""What holds for the deployment as a whole, whichever process decides it: read by all, written by few."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from streamline.bus import Bus
from streamline.domain.change import read
from streamline.errors import StoreUnavailable
from streamline.store import Store, WakeChannel, statements

FACTS_SECONDS = 5.0
_NAME = "facts"


class Facts:
    """A small document that every process keeps a copy of; the copy may be old by a few seconds."""

    def __init__(self, store: Store, bus: Bus, wakes: WakeChannel | None) -> None:
        self._store = store
        self._bus = bus
        self._wakes = wakes
        self._known: Mapping[str, Any] = {}
        self._listeners: list[Callable[[], None]] = []
        self._loading: set[asyncio.Future[None]] = set()

    def get(self, path: str, default: Any = None) -> Any:
        """Return what is known at a path such as ``paused.orders``."""
        # Asked at every write and step, for most of what is asked by one name.
        found = read(self._known, path) if "." in path else self._known.get(path)
        return default if found is None else found

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when something has changed; return a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def listen(self) -> Callable[[], None]:
        """Read again whenever another process says that something has changed; return a function that ends it."""
        return self._bus.on_hint(_NAME, self._load_soon)

    async def load(self) -> None:
        """Read what holds now."""
        found = await self._store.run(statements.find_meta(_NAME))
        known = found[0] if found else {}
        if known != self._known:
            self._known = known
            for listener in tuple(self._listeners):
                listener()

    async def put(self, path: str, value: Any) -> None:
        """Decide something for the whole deployment."""
        await self._change({path: value}, ())

    async def drop(self, path: str) -> None:
        """Take something back."""
        await self._change({}, (path,))

    async def _change(self, put: Mapping[str, Any], drop: tuple[str, ...]) -> None:
        if not await self._store.run(statements.change_meta(_NAME, put, drop)):
            await self._store.run(statements.insert_meta({"_id": _NAME}))
            await self._store.run(statements.change_meta(_NAME, put, drop))
        await self.load()
        if self._wakes is not None:
            self._wakes.hint(_NAME)

    def _load_soon(self) -> None:
        loading = asyncio.ensure_future(self._load_if_possible())
        self._loading.add(loading)
        loading.add_done_callback(self._loading.discard)

    async def _load_if_possible(self) -> None:
        with suppress(StoreUnavailable):  # the next look brings it
            await self.load()
