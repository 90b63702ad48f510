"""Path of a request: a percent-encoded slash stays in its segment, and text is in the Unicode form NFC.

An ASGI server decodes the whole path before the application splits it, so the `%2F` in `/v1/events/INV%2F2026%2F00017` would begin a new
segment. The path as it was sent is split first here, and then decoded. Until the route is found a slash within a segment is written as
`http.paths.SLASH`.
"""

from falcon.asgi import Request, Response

from guerdon.http.paths import segments_of


class RequestPath:
    """Falcon middleware."""

    async def process_request(self, req: Request, resp: Response) -> None:
        """Replace the path that the route is found by."""
        raw: bytes = req.scope.get("raw_path") or b""
        req.path = segments_of(req.path, raw.partition(b"?")[0])
