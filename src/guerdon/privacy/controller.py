"""Routes by which people are forgotten, and get all that is kept about them."""

from collections.abc import AsyncGenerator
from typing import Any

from guerdon.errors import DatabaseUnavailable, InvalidState, NotFound, Overloaded, StoreUnavailable
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, operation
from guerdon.http.respond import JSON_TYPE, send
from guerdon.permissions import ERASE_SCOPE, EXPORT_SCOPE, OWN, scope
from guerdon.privacy.exports import Exports
from guerdon.privacy.models import CertificateView, ExportView, OwnErasure
from guerdon.privacy.rules import view_certificate
from guerdon.privacy.service import Erasures


class ErasuresResource:
    """`/v1/members/{member_id}/erase`, `/v1/me/erase`, `/v1/members/{member_id}/erasure`"""

    def __init__(self, erasures: Erasures) -> None:
        self._erasures = erasures

    @operation(
        "eraseMember",
        scope(ERASE_SCOPE),
        tag="privacy",
        answers={200: CertificateView},
        errors=(NotFound, InvalidState),
    )
    async def on_post_erase(self, req: Request, resp: Response, member_id: str) -> None:
        """Forget a member for ever: the key, the profile, the address, sessions. There is no way back.

        Wallets and their history stay as they are, under an id that leads to nobody; value in them stays on the books. Repeating the request
        answers the same certificate.
        """
        certificate = await self._erasures.erase(member_id, actor_of(req), req.context.request_id)
        send(resp, view_certificate(certificate))

    @operation(
        "eraseMe",
        OWN,
        tag="privacy",
        body=OwnErasure,
        answers={200: CertificateView},
        errors=(InvalidState, Overloaded, StoreUnavailable),
        example={"current_password": "correct horse battery staple"},
    )
    async def on_post_me(self, req: Request, resp: Response) -> None:
        """Be forgotten for ever. What is in the caller's wallets is lost to them; the answer is the only proof that they get."""
        body, _ = await read(req, OwnErasure)
        certificate = await self._erasures.erase_own(actor_of(req), body.current_password, req.context.request_id)
        send(resp, view_certificate(certificate))

    @operation("getErasure", scope("members:read"), tag="privacy", answers={200: CertificateView}, errors=(NotFound,))
    async def on_get_certificate(self, req: Request, resp: Response, member_id: str) -> None:
        """Read the certificate of a finished erasure."""
        send(resp, view_certificate(await self._erasures.get_certificate(member_id)))


class ExportsResource:
    """`/v1/me/export` and `/v1/members/{member_id}/export`"""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports

    @operation(
        "exportMe",
        OWN,
        tag="privacy",
        answers={200: ExportView},
        errors=(Overloaded, DatabaseUnavailable),
    )
    async def on_get_me(self, req: Request, resp: Response) -> None:
        """Get everything that is kept about the caller, once a day. One that was cut off may be asked for again after ten minutes."""
        actor = actor_of(req)
        _send(resp, actor.id, await self._exports.export_own(actor))

    @operation(
        "exportMember",
        scope(EXPORT_SCOPE),
        tag="privacy",
        answers={200: ExportView},
        errors=(NotFound, Overloaded, DatabaseUnavailable),
        audited=True,
    )
    async def on_get(self, req: Request, resp: Response, member_id: str) -> None:
        """Get everything that is kept about a member. That it was asked for goes to the audit log."""
        _send(resp, member_id, await self._exports.export(member_id))


def _send(resp: Response, member_id: str, pieces: AsyncGenerator[bytes]) -> None:
    resp.stream = pieces
    resp.content_type = JSON_TYPE
    resp.set_header("Content-Disposition", f'attachment; filename="export-{member_id}.json"')


def routes(erasures: Erasures, exports: Exports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this room."""
    forgetting, getting = ErasuresResource(erasures), ExportsResource(exports)
    return [
        ("/v1/members/{member_id}/erase", forgetting, "erase"),
        ("/v1/me/erase", forgetting, "me"),
        ("/v1/members/{member_id}/erasure", forgetting, "certificate"),
        ("/v1/members/{member_id}/export", getting, None),
        ("/v1/me/export", getting, "me"),
    ]
