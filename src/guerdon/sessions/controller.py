"""Routes of log-in, log-out, sessions and the caller's password."""

from guerdon.errors import NotFound, Overloaded, SecondFactorNeeded, StoreUnavailable, Unauthenticated
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, address_of, note, operation, send
from guerdon.permissions import OWN, PUBLIC
from guerdon.sessions.models import (
    DEVICE_LENGTH_MAX,
    LoginCreate,
    PasswordUpdate,
    RefreshCreate,
    SessionList,
    TokenView,
    view_session,
)
from guerdon.sessions.service import Sessions

_EXAMPLE = {"refresh_token": "gr_019a7f3c2d1e4b5a69788796a5b4c3d2s3ss10nName0_family and secret and checksum"}


class LoginResource:
    """`/v1/auth/…`"""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @operation(
        "logIn",
        PUBLIC,
        tag="auth",
        body=LoginCreate,
        answers={200: TokenView},
        errors=(Unauthenticated, SecondFactorNeeded, StoreUnavailable, Overloaded),
        example={"email": "ada@example.com", "password": "correct horse battery staple"},
        quota="entry",
    )
    async def on_post_login(self, req: Request, resp: Response) -> None:
        """Exchange an e-mail address and a password for an access token and a refresh token."""
        body, _ = await read(req, LoginCreate)
        tokens = await self._sessions.log_in(body, device_of(req), address_of(req))
        note(req, member=tokens.member_id)
        send(resp, tokens)

    @operation(
        "refresh",
        PUBLIC,
        tag="auth",
        body=RefreshCreate,
        answers={200: TokenView},
        errors=(Unauthenticated,),
        example=_EXAMPLE,
    )
    async def on_post_refresh(self, req: Request, resp: Response) -> None:
        """Exchange a refresh token for a new pair of tokens. A refresh token can be used once."""
        body, _ = await read(req, RefreshCreate)
        send(resp, await self._sessions.refresh(body.refresh_token))

    @operation("logOut", PUBLIC, tag="auth", body=RefreshCreate, answers={204: None}, example=_EXAMPLE)
    async def on_post_logout(self, req: Request, resp: Response) -> None:
        """End the session of a refresh token. The response is the same if the session has already ended."""
        body, _ = await read(req, RefreshCreate)
        await self._sessions.log_out(body.refresh_token)
        resp.status = 204


class SessionsResource:
    """`/v1/me/sessions` and `/v1/me/password`"""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @operation("listMySessions", OWN, tag="auth", answers={200: SessionList})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List the caller's sessions."""
        actor = actor_of(req)
        found = await self._sessions.list_of(actor.id)
        views = [view_session(session, device, current=session.id == actor.session) for session, device in found]
        send(resp, SessionList(views))

    @operation("logOutEverywhere", OWN, tag="auth", answers={204: None})
    async def on_delete(self, req: Request, resp: Response) -> None:
        """End all of the caller's sessions, including the current one."""
        await self._sessions.end_all(actor_of(req).id)
        resp.status = 204

    @operation("endMySession", OWN, tag="auth", answers={204: None}, errors=(NotFound,))
    async def on_delete_one(self, req: Request, resp: Response, session_id: str) -> None:
        """End one of the caller's sessions."""
        await self._sessions.end(actor_of(req), session_id)
        resp.status = 204

    @operation(
        "changeMyPassword",
        OWN,
        tag="auth",
        body=PasswordUpdate,
        answers={204: None},
        errors=(NotFound, StoreUnavailable, Overloaded),
        example={"current_password": "correct horse battery staple", "new_password": "staple battery horse correct"},
    )
    async def on_put_password(self, req: Request, resp: Response) -> None:
        """Change the caller's password and end every other session."""
        body, _ = await read(req, PasswordUpdate)
        await self._sessions.change_password(actor_of(req), body.current_password, body.new_password)
        resp.status = 204


def device_of(request: Request) -> str | None:
    """Return the `User-Agent` without unprintable characters, or None. It is shown only to the member."""
    text = "".join(letter for letter in request.get_header("User-Agent") or "" if letter.isprintable())
    return text[:DEVICE_LENGTH_MAX] or None


def routes(sessions: Sessions) -> list[tuple[str, object, str | None]]:
    """Return (path, resource, suffix) of every route of sessions."""
    auth, own = LoginResource(sessions), SessionsResource(sessions)
    return [
        ("/v1/auth/login", auth, "login"),
        ("/v1/auth/refresh", auth, "refresh"),
        ("/v1/auth/logout", auth, "logout"),
        ("/v1/me/sessions", own, None),
        ("/v1/me/sessions/{session_id}", own, "one"),
        ("/v1/me/password", own, "password"),
    ]
