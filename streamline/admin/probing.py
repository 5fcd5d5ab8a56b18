"""Asking an app how it is."""

from __future__ import annotations

from streamline.admin.opened import Opened
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.health import Health, HealthCheck, summed_up

_CLOSED = summed_up({"app": HealthCheck("down", "the app is not open")}, vital="app")


class Probing(Opened):
    """``health``."""

    async def health(self, timeout: Duration = "2s") -> Health:
        """Return how the app stands, for readiness and liveness probes; whatever is wrong is told, not raised.

        The database is asked for a sign of life. Everything else is what this process knows already.

        Args:
            timeout: Within which the database has to answer.

        Raises:
            InvalidPolicy: `timeout` is no positive duration.
            WrongLoop: The app was opened in another event loop.
        """
        seconds = parse_duration(timeout, "timeout", positive=True).total_seconds()
        if self._session is None:
            return _CLOSED
        return await self._open_session.vital_signs.look(seconds)
