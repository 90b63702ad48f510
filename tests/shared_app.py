"""One application for all tests with the same settings: building its 109 routes takes 30 ms, and few tests need an application of their own.

The application is built over stand-ins, which pass every attribute on to the services and the log of the test that runs. It keeps nothing
of a test except the counts of `/metrics`. A test that reads those counts, or changes the application, carries the mark `own_app`.
"""

from collections.abc import Callable
from typing import Any, Never, cast

from falcon.asgi import App
from structlog.typing import FilteringBoundLogger

from guerdon.config import Settings
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services


class StandIn:
    """Passes every attribute on to an object that is looked up each time. Setting an attribute fails: it would last for all later tests."""

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[], object]) -> None:
        self._find = find

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)


class SharedApp(App[Any, Any]):
    """An application that refuses changes."""

    __slots__ = ()

    def _refuse(self, *_args: object, **_kwargs: object) -> Never:
        raise AssertionError("other tests share this application: mark the test with @pytest.mark.own_app")

    add_route = add_sink = add_static_route = add_middleware = add_error_handler = set_error_serializer = _refuse


class Apps:
    """Applications by their settings, and what they use now."""

    def __init__(self) -> None:
        self._apps: dict[Settings, App[Any, Any]] = {}
        self._services: Services | None = None
        self._log: FilteringBoundLogger | None = None

    def app_over(self, services: Services, settings: Settings, log: FilteringBoundLogger) -> App[Any, Any]:
        """Return the application for these settings. From now on it uses these services and this log."""
        self._services, self._log = services, log
        if settings not in self._apps:
            app = build_app(
                cast("Services", _ServicesStandIn(services, lambda: self._services)),
                settings,
                cast("FilteringBoundLogger", StandIn(lambda: self._log)),
            )
            app.__class__ = SharedApp
            self._apps[settings] = app
        return self._apps[settings]


class _ServicesStandIn:
    """Has a stand-in for each service. A service that these settings leave out is None, as it is in the services themselves."""

    __slots__ = ("_find", "_model")

    def __init__(self, services: Services, find: Callable[[], Services | None]) -> None:
        self._model = services
        self._find = find

    def __getattr__(self, name: str) -> Any:
        return None if getattr(self._model, name) is None else StandIn(lambda: getattr(self._find(), name))
