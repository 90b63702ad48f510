"""Routes of second factors."""

import segno

from guerdon.errors import InvalidState, Overloaded, StoreUnavailable, TooManyRequests
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.permissions import STAFF
from guerdon.second_factor.models import (
    FactorConfirm,
    FactorCreate,
    FactorProof,
    FactorView,
    NewFactorView,
    RecoveryCodesView,
    view_factor,
)
from guerdon.second_factor.service import SecondFactors

_PROOF = {"current_password": "correct horse battery staple", "code": "492039"}
_ERRORS = (InvalidState, TooManyRequests, StoreUnavailable, Overloaded)


class FactorsResource:
    """`/v1/me/totp…`"""

    def __init__(self, factors: SecondFactors) -> None:
        self._factors = factors

    @operation("getMyFactor", STAFF, tag="auth", answers={200: FactorView})
    async def on_get(self, req: Request, resp: Response) -> None:
        """Return the state of the caller's second factor."""
        send(resp, view_factor(await self._factors.get(actor_of(req).id)))

    @operation(
        "enrolFactor",
        STAFF,
        tag="auth",
        body=FactorCreate,
        answers={201: NewFactorView},
        errors=(InvalidState, StoreUnavailable, Overloaded),
        example={"current_password": "correct horse battery staple"},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Enrol a second factor: return a secret for an authenticator. Log-ins require its code once it is confirmed."""
        body, _ = await read(req, FactorCreate)
        secret, uri = await self._factors.begin(actor_of(req).id, body.current_password)
        send(resp, NewFactorView(secret, uri, segno.make(uri, micro=False, error="m").svg_data_uri(scale=4, unit="px")), 201)

    @operation(
        "confirmFactor",
        STAFF,
        tag="auth",
        body=FactorConfirm,
        answers={200: RecoveryCodesView},
        errors=(InvalidState, TooManyRequests),
        example={"code": "492039"},
    )
    async def on_post_confirm(self, req: Request, resp: Response) -> None:
        """Confirm the second factor with a code. Log-ins require a code from now on; the response contains ten recovery codes."""
        body, _ = await read(req, FactorConfirm)
        send(resp, RecoveryCodesView(await self._factors.confirm(actor_of(req).id, body.code)))

    @operation(
        "renewRecoveryCodes",
        STAFF,
        tag="auth",
        body=FactorProof,
        answers={200: RecoveryCodesView},
        errors=_ERRORS,
        example=_PROOF,
    )
    async def on_post_codes(self, req: Request, resp: Response) -> None:
        """Replace the recovery codes by ten new ones. The older codes become invalid."""
        body, _ = await read(req, FactorProof)
        send(resp, RecoveryCodesView(await self._factors.renew_codes(actor_of(req).id, body.current_password, body.code)))

    @operation("removeFactor", STAFF, tag="auth", body=FactorProof, answers={204: None}, errors=_ERRORS, example=_PROOF)
    async def on_post_remove(self, req: Request, resp: Response) -> None:
        """Remove the caller's second factor."""
        body, _ = await read(req, FactorProof)
        await self._factors.remove(actor_of(req).id, body.current_password, body.code)
        resp.status = 204


def routes(factors: SecondFactors) -> list[tuple[str, object, str | None]]:
    """Return (path, resource, suffix) of every route of second factors."""
    resource = FactorsResource(factors)
    return [
        ("/v1/me/totp", resource, None),
        ("/v1/me/totp/confirm", resource, "confirm"),
        ("/v1/me/totp/recovery-codes", resource, "codes"),
        ("/v1/me/totp/remove", resource, "remove"),
    ]
