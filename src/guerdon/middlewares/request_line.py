"""Checks of the request line and the Host header, before a route handles the request.

A gateway that closes a path compares the path as it was sent. The router compares the decoded path and ignores a second slash at its beginning, so
`//metrics` and `/%6detrics` would pass such a gateway and find the route. Nothing is normalised here: the fixed parts of a path must be sent as
they are documented.
"""

from typing import Any

from guerdon.errors import BadRequest, NotFound
from guerdon.http.operation import Request, Response

NO_ROUTE = "this route does not exist"


class RequestLine:
    """Falcon middleware. It must be the first one that refuses requests."""

    async def process_request(self, req: Request, resp: Response) -> None:
        """
        Raises:
            BadRequest: an HTTP/1.1 request has no Host header or several (RFC 9112, section 3.2).
        """
        if req.scope["http_version"] != "1.1":
            return
        hosts = [value for name, value in req.scope["headers"] if name == b"host"]
        # The server adds an empty header to a request that has none.
        if len(hosts) != 1 or not hosts[0].strip():
            raise BadRequest("an HTTP/1.1 request needs exactly one Host header")

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        """
        Raises:
            NotFound: the path that was sent is not the path of the route.
        """
        raw: bytes = req.scope.get("raw_path") or b""
        if (b"%" in raw or b"//" in raw) and req.uri_template is not None and not _is_literal(raw, req.uri_template):
            raise NotFound(NO_ROUTE)


def _is_literal(raw: bytes, template: str) -> bool:
    """Return whether a path has the fixed segments of the template unencoded. Parameters may be percent-encoded."""
    sent, wanted = raw.partition(b"?")[0].split(b"/"), template.encode().split(b"/")
    return len(sent) == len(wanted) and all(
        b"{" in segment or segment == given for segment, given in zip(wanted, sent, strict=True)
    )
