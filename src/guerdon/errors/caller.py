"""Errors of a request that the caller must change."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Self, cast

from guerdon.errors.base import CallerError

FAULTS_MAX = 20
"""Maximum number of faults that one answer lists."""


class MalformedJson(CallerError):
    code = "malformed-json"
    status = 400
    title = "Malformed JSON"
    page = (
        "The body is not a JSON document with exactly one meaning: it has a syntax error, a repeated key in an object, a number "
        "that JSON does not have (NaN, Infinity), text that is not UTF-8, or more than 32 levels of nesting."
    )


class Validation(CallerError):
    code = "validation"
    status = 422
    title = "Invalid request"
    page = (
        "The JSON is well-formed, but a value is not acceptable. `errors` lists up to 20 faults, each with a JSON Pointer (RFC "
        "6901) or the name of a query parameter, and the words that state what it must be. Amounts are whole numbers of minor units, 1 to 10^15."
    )

    @classmethod
    def at(cls, pointer: str, detail: str, **position: int) -> "Validation":
        """Return the error of the value at a JSON Pointer or query parameter; `position` is the position of the fault within the value."""
        return cls._listing([{"pointer": pointer, "detail": detail, **position}])

    @classmethod
    def of(cls, faults: Sequence[tuple[str, str]]) -> "Validation":
        """Return the error of several values, each given by its pointer and a phrase such as `must be at least 1`."""
        sentences = [f"{pointer}: {words}" if pointer else f"the request {words}" for pointer, words in faults]
        return cls(_summary(sentences), errors=[{"pointer": pointer, "detail": words} for pointer, words in faults])

    @classmethod
    def all_of(cls, faults: Sequence["Validation"]) -> "Validation":
        """Return one error that lists the faults of all these, up to `FAULTS_MAX`."""
        return cls._listing([error for fault in faults for error in fault._errors][:FAULTS_MAX])

    def under(self, pointer: str) -> "Validation":
        """Return the same error for a value that is part of a larger one, to which `pointer` points."""
        return self._listing([{**each, "pointer": f"{pointer}{each['pointer']}"} for each in self._errors])

    @property
    def _errors(self) -> list[dict[str, object]]:
        return cast(list[dict[str, object]], self.members["errors"])

    @classmethod
    def _listing(cls, errors: list[dict[str, object]]) -> "Validation":
        sentences = [f"{each['pointer']}: {each['detail']}" if each["pointer"] else str(each["detail"]) for each in errors]
        return cls(_summary(sentences), errors=errors)


def _summary(sentences: list[str]) -> str:
    """Return the first three sentences and the number of the others."""
    more = [f"and {len(sentences) - 3} more"] if len(sentences) > 3 else []
    return "; ".join(sentences[:3] + more)


@contextmanager
def collect(faults: list[Validation]) -> Generator[None]:
    """Add the fault that the block raises to `faults`, so that the checks after it run too. Raise them with `Validation.all_of`."""
    try:
        yield
    except Validation as fault:
        faults.append(fault)


class LinesRefused(CallerError):
    code = "lines-refused"
    status = 422
    title = "Lines of the file are not acceptable"
    page = (
        "The file has lines that are not acceptable, and nothing was imported. `lines` has the first hundred of them, each with "
        "the number of its `line` (the first is 1) and a sentence that states the fault. `count` is their number."
    )


class IdempotencyKeyMissing(CallerError):
    code = "idempotency-key-missing"
    status = 400
    title = "Idempotency-Key is missing or malformed"
    page = (
        "A request that moves value needs one `Idempotency-Key` header of 1 to 255 visible ASCII characters. The client makes "
        "the key before the first attempt. Sending the same key again is always safe. Quotes around the key are optional."
    )


class IdempotencyKeyReused(CallerError):
    code = "idempotency-key-reused"
    status = 422
    title = "Idempotency-Key was used for another request"
    page = (
        "This key belongs to a request with other content. Nothing was done. Use a new key for a new operation; repeat the same "
        "bytes to read the first answer again."
    )


class Unauthenticated(CallerError):
    code = "unauthenticated"
    status = 401
    title = "Credentials are missing or not valid"
    page = "Send `Authorization: Bearer …` with a service key or an access token that has not expired."
    is_guess = True
    """False if this service issued the credentials and they were valid once. The answer is the same."""


class SecondFactorNeeded(Unauthenticated):
    code = "second-factor-needed"
    status = 401
    title = "A second factor is needed"
    page = (
        "The e-mail address and the password are right, and this account has a second factor. Log in again with a code of the "
        "authenticator, or a recovery code, as `code`. A wrong or used code gets this answer too."
    )


class SecondFactorMissing(CallerError):
    code = "second-factor-missing"
    status = 403
    title = "Log in with a second factor"
    page = (
        "In this deployment staff need a session that began with a second factor. Enrol one with `POST /v1/me/totp` and `POST "
        "/v1/me/totp/confirm`, and log in again with its code."
    )


class Forbidden(CallerError):
    code = "forbidden"
    status = 403
    title = "Not allowed"
    page = "The credentials are valid but do not have the scope of this route. `detail` names the scope."


class NotFound(CallerError):
    code = "not-found"
    status = 404
    title = "Not found"
    page = "The object does not exist, or it belongs to another member. The answer is the same in both cases."


class MethodNotAllowed(CallerError):
    code = "method-not-allowed"
    status = 405
    title = "Method not allowed"
    page = "The path exists, but not with this method. The `Allow` header lists the methods it has."


class AlreadyExists(CallerError):
    code = "already-exists"
    status = 409
    title = "Already exists"
    page = "Another member or asset has this unique value. `field` names it. Nothing was created."


class BodyTooLarge(CallerError):
    code = "body-too-large"
    status = 413
    title = "Body too large"
    page = "A body may have 256 KiB, a bulk request 2 MiB. `limit_bytes` is the limit of this route. Split the request."


class RequestTimeout(CallerError):
    code = "request-timeout"
    status = 408
    title = "Request arrived too slowly"
    page = (
        "The body did not arrive in time (`GUERDON_BODY_TIMEOUT_SECONDS`, 10 by default). Nothing was done. Send the request again."
    )


class UnsupportedMediaType(CallerError):
    code = "unsupported-media-type"
    status = 415
    title = "Unsupported media type"
    page = "Send `Content-Type: application/json` (UTF-8, not compressed)."


class TooManyRequests(CallerError):
    code = "too-many-requests"
    status = 429
    title = "Too many requests"
    page = (
        "The caller has reached a rate limit, and nothing was done. `violated-policies` names the limit. `Retry-After` is the "
        "time after which the next request is accepted. Most limits count requests, and `RateLimit-Policy` states their size; "
        "`second-factor` counts five wrong codes behind a right password, `export` one document per day, and `connections` the "
        "open connections of a gateway."
    )

    @classmethod
    def of(cls, policy: str, detail: str, *, retry_after_seconds: int) -> Self:
        """Return the error of a quota that is used up."""
        return cls(detail, retry_after_seconds=retry_after_seconds, **{"violated-policies": [policy]})


class BadRequest(CallerError):
    code = "bad-request"
    status = 400
    title = "Bad request"
    page = "The request line, a header or a parameter could not be understood."
