"""Routes of erasures and exports."""

from collections.abc import AsyncGenerator
from typing import Any

from guerdon.errors import DatabaseUnavailable, InvalidState, NotFound, Overloaded, StoreUnavailable
from guerdon.http.body import read
from guerdon.http.operation import JSON_TYPE, Request, Response, actor_of, operation, send
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
        """Erase a member permanently: the key, the profile, the address and the sessions. An erasure cannot be undone.

        Wallets and their history do not change; they remain under an id without personal data, with the value in them. Repeating the request
        returns the same certificate.
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
        """Erase the caller permanently. The caller loses the value in their wallets. Only this response contains the certificate for them."""
        body, _ = await read(req, OwnErasure)
        certificate = await self._erasures.erase_own(actor_of(req), body.current_password, req.context.request_id)
        send(resp, view_certificate(certificate))

    @operation("getErasure", scope("members:read"), tag="privacy", answers={200: CertificateView}, errors=(NotFound,))
    async def on_get_certificate(self, req: Request, resp: Response, member_id: str) -> None:
        """Return the certificate of a completed erasure."""
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
        """Export all data about the caller, once a day. An incomplete export can be requested again after ten minutes."""
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
        """Export all data about a member. The audit log records the request."""
        _send(resp, member_id, await self._exports.export(member_id))


def _send(resp: Response, member_id: str, pieces: AsyncGenerator[bytes]) -> None:
    resp.stream = pieces
    resp.content_type = JSON_TYPE
    resp.set_header("Content-Disposition", f'attachment; filename="export-{member_id}.json"')


def routes(erasures: Erasures, exports: Exports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of erasures and exports."""
    erasure, export = ErasuresResource(erasures), ExportsResource(exports)
    return [
        ("/v1/members/{member_id}/erase", erasure, "erase"),
        ("/v1/me/erase", erasure, "me"),
        ("/v1/members/{member_id}/erasure", erasure, "certificate"),
        ("/v1/members/{member_id}/export", export, None),
        ("/v1/me/export", export, "me"),
    ]
