"""Routes of password resets."""

from guerdon.errors import DatabaseUnavailable, Overloaded, StoreUnavailable, Unauthenticated
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, note, operation, send
from guerdon.password_reset.models import ForgotCreate, ForgotView, ResetCreate, ResetView
from guerdon.password_reset.service import PasswordResets
from guerdon.permissions import PUBLIC


class PasswordResetResource:
    """`/v1/auth/forgot` and `/v1/auth/reset`"""

    def __init__(self, resets: PasswordResets) -> None:
        self._resets = resets

    @operation(
        "forgotPassword",
        PUBLIC,
        tag="auth",
        body=ForgotCreate,
        answers={202: ForgotView},
        errors=(StoreUnavailable,),
        example={"email": "ada@example.com"},
        quota="entry",
    )
    async def on_post_forgot(self, req: Request, resp: Response) -> None:
        """Request a password reset by mail. The response is the same for an address that no member has."""
        body, _ = await read(req, ForgotCreate)
        await self._resets.request(body.email)
        send(resp, ForgotView(), 202)

    @operation(
        "resetPassword",
        PUBLIC,
        tag="auth",
        body=ResetCreate,
        answers={200: ResetView},
        errors=(Unauthenticated, StoreUnavailable, Overloaded, DatabaseUnavailable),
        example={
            "token": "gp_019a7f3c2d1e4b5a69788796a5b4c3d2_secret and checksum",
            "new_password": "staple battery horse correct",
        },
    )
    async def on_post_reset(self, req: Request, resp: Response) -> None:
        """Set a new password with a token from the mail, and end all sessions. The token can be used once."""
        body, _ = await read(req, ResetCreate)
        member_id, device_token = await self._resets.reset(body.token, body.new_password)
        note(req, member=member_id)
        send(resp, ResetView(device_token))


def routes(resets: PasswordResets) -> list[tuple[str, object, str | None]]:
    """Return (path, resource, suffix) of every route of password resets."""
    resource = PasswordResetResource(resets)
    return [("/v1/auth/forgot", resource, "forgot"), ("/v1/auth/reset", resource, "reset")]
