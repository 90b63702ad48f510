"""One application for all tests with the same settings: building its 109 routes takes 30 ms, and most tests need no application of their own.

The application is built over stand-ins, which pass everything on to the services and the log of the test that runs.
"""

from collections.abc import Callable
from typing import Any, cast

from falcon.asgi import App
from structlog.typing import FilteringBoundLogger

from guerdon.config import Settings
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services


class StandIn:
    """Passes every attribute on to an object that is looked up each time."""

    def __init__(self, find: Callable[[], object]) -> None:
        self._find = find

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)


class Apps:
    """Applications by their settings, and what they stand on now."""

    def __init__(self) -> None:
        self._apps: dict[str, App[Any, Any]] = {}
        self._services: Services | None = None
        self._log: FilteringBoundLogger | None = None

    def app_over(self, services: Services, settings: Settings, log: FilteringBoundLogger) -> App[Any, Any]:
        """Return the application for these settings. From now on it uses these services and this log."""
        self._services, self._log = services, log
        key = settings.model_dump_json()
        if key not in self._apps:
            self._apps[key] = build_app(
                cast("Services", _ServicesStandIn(services, lambda: self._services)),
                settings,
                cast("FilteringBoundLogger", StandIn(lambda: self._log)),
            )
        return self._apps[key]


class _ServicesStandIn:
    """Has a stand-in for each service. What these settings leave out is None, as it is in the services themselves."""

    def __init__(self, services: Services, find: Callable[[], Services | None]) -> None:
        self._model = services
        self._find = find

    def __getattr__(self, name: str) -> Any:
        return None if getattr(self._model, name) is None else StandIn(lambda: getattr(self._find(), name))
