"""Routes for health, metrics, the OpenAPI document and its page, and the pages of problem types."""

from collections.abc import Awaitable, Callable
from html import escape
from importlib.resources import files
from typing import Literal

from msgspec import Struct

from guerdon.errors import ClockSkewed, DatabaseUnavailable, GuerdonError, NotFound, registry
from guerdon.http.operation import Request, Response, operation, send
from guerdon.permissions import METRICS_SCOPE, PUBLIC, scope
from guerdon.system.metrics import CONTENT_TYPE, Metrics
from guerdon.system.openapi import Routes

_UI_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_PAGE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_DOCS_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; {_PAGE}"
)
_DOCS_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Guerdon API</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="ui"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script>
<noscript>The document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript></body></html>"""
_DOCS_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null});'
_HTML_EXAMPLE = "<!doctype html><title>…</title>"
_METRICS_EXAMPLE = 'guerdon_http_requests_total{method="POST",route="/v1/wallets/{wallet_id}/debit",status="201"} 42.0\n'
_PAGE_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; {_PAGE}"


class Health(Struct, frozen=True):
    """State of the service. If it is not `ok`, the answer is a problem."""

    status: Literal["ok"]
    """Always `ok`."""


class HealthResource:
    """`/health/live` and `/health/ready`"""

    def __init__(self, check_ready: Callable[[], Awaitable[None]]) -> None:
        self._check_ready = check_ready

    @operation("getLiveness", PUBLIC, tag="operations", answers={200: Health}, quota="none")
    async def on_get_live(self, _req: Request, resp: Response) -> None:
        """Check that the process answers. A database that fails does not change the answer."""
        send(resp, Health("ok"))

    @operation(
        "getReadiness", PUBLIC, tag="operations", answers={200: Health}, errors=(ClockSkewed, DatabaseUnavailable), quota="none"
    )
    async def on_get_ready(self, _req: Request, resp: Response) -> None:
        """Check that the database answers, and that its clock agrees with the clock of this machine."""
        await self._check_ready()
        send(resp, Health("ok"))


class MetricsResource:
    """`/metrics`"""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @operation("getMetrics", PUBLIC, tag="operations", answers={200: None}, media={"text/plain": _METRICS_EXAMPLE}, quota="none")
    async def on_get_open(self, _req: Request, resp: Response) -> None:
        """Read the metrics (Prometheus text format). No credentials are needed, so a gateway must not expose it. No personal data."""
        self._render(resp)

    @operation("getMetrics", scope(METRICS_SCOPE), tag="operations", answers={200: None}, media={"text/plain": _METRICS_EXAMPLE})
    async def on_get_guarded(self, _req: Request, resp: Response) -> None:
        """Read the metrics (Prometheus text format). In development no credentials are needed, unless `GUERDON_METRICS=key`."""
        self._render(resp)

    def _render(self, resp: Response) -> None:
        resp.content_type = CONTENT_TYPE
        resp.data = self._metrics.render()


class DocsResource:
    """`/openapi.json`, `/docs` and the files of its page."""

    def __init__(self) -> None:
        self._document = b"{}"

    def publish(self, document: bytes) -> None:
        """Set the document to serve."""
        self._document = document

    @operation(
        "getOpenapi",
        PUBLIC,
        tag="operations",
        answers={200: None},
        media={"application/json": {"openapi": "3.1.0", "info": {"title": "Guerdon", "version": "…"}, "paths": {}}},
    )
    async def on_get_document(self, _req: Request, resp: Response) -> None:
        """Read this document (OpenAPI 3.1)."""
        resp.content_type = "application/json"
        resp.data = self._document

    @operation("getDocs", PUBLIC, tag="operations", answers={200: None}, media={"text/html": _HTML_EXAMPLE})
    async def on_get_page(self, _req: Request, resp: Response) -> None:
        """Open this documentation as a page. It loads nothing from other servers."""
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", _DOCS_POLICY)
        resp.text = _DOCS_PAGE

    @operation(
        "getDocsFile",
        PUBLIC,
        tag="operations",
        answers={200: None},
        media={"text/css": "…", "text/javascript": "…"},
        errors=(NotFound,),
    )
    async def on_get_file(self, _req: Request, resp: Response, name: str) -> None:
        """Read a script or style of the documentation page."""
        resp.set_header("Cache-Control", "public, max-age=86400")
        if name == "start.js":
            resp.content_type, resp.text = "text/javascript", _DOCS_START
            return
        if name not in _UI_FILES:
            raise NotFound("the documentation has no such file")
        resp.content_type = _UI_FILES[name]
        resp.data = files("swagger_ui").joinpath("static", name).read_bytes()


class ProblemsResource:
    """`/problems` and `/problems/{code}`, to which the `type` of a problem points."""

    def __init__(self) -> None:
        self._registry = registry()

    @operation("listProblems", PUBLIC, tag="operations", answers={200: None}, media={"text/html": _HTML_EXAMPLE})
    async def on_get(self, _req: Request, resp: Response) -> None:
        """List all problem types."""
        rows = "".join(
            f'<li><a href="/problems/{escape(code)}">{escape(code)}</a> ({error.status}): {escape(error.title)}</li>'
            for code, error in sorted(self._registry.items())
        )
        _send_page(resp, "Problem types", f"<ul>{rows}</ul>")

    @operation("getProblem", PUBLIC, tag="operations", answers={200: None}, media={"text/html": _HTML_EXAMPLE}, errors=(NotFound,))
    async def on_get_one(self, _req: Request, resp: Response, code: str) -> None:
        """Read the page of a problem type: its meaning and what to change."""
        error = self._registry.get(code)
        if error is None:
            raise NotFound("there is no such problem type")
        _send_page(resp, f"{error.title} ({error.status})", f"<p><code>{escape(code)}</code></p><p>{_html_of(error)}</p>")


def _html_of(error: type[GuerdonError]) -> str:
    parts = escape(error.page).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def _send_page(resp: Response, title: str, body: str) -> None:
    resp.content_type = "text/html; charset=utf-8"
    resp.set_header("Content-Security-Policy", _PAGE_POLICY)
    resp.text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}</style></head>"
        f'<body><h1>{escape(title)}</h1>{body}<p><a href="/problems">All problem types</a></p></body></html>'
    )


def routes(
    docs: DocsResource | None, metrics: Metrics, check_ready: Callable[[], Awaitable[None]], *, open_metrics: bool
) -> Routes:
    """Return (path, resource, suffix) of every route. Without `docs` the documentation is not served."""
    health, problems = HealthResource(check_ready), ProblemsResource()
    pages: Routes = [("/openapi.json", docs, "document"), ("/docs", docs, "page"), ("/docs/{name}", docs, "file")]
    return [
        ("/health/live", health, "live"),
        ("/health/ready", health, "ready"),
        ("/metrics", MetricsResource(metrics), "open" if open_metrics else "guarded"),
        *(pages if docs is not None else []),
        ("/problems", problems, None),
        ("/problems/{code}", problems, "one"),
    ]
