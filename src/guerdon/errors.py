"""The error tree. Every failure that can leave the service is a class here, with a stable code.

Three families, three treatments:

* `CallerError`: the request is wrong; the answer says what to change; nothing was written.
* `BusinessError`: the request is right but the books refuse it; definite and safe to show to a person.
* `OperationsError`: we could not do it now; retry later, with the same key where value moves.

Each class carries the text of its page under `/problems/{code}`, so the registry cannot drift from the code.
"""

from collections.abc import Iterator
from typing import ClassVar, Self, cast


class GuerdonError(Exception):
    """An error that has a code, an HTTP status and a page of its own."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    page: ClassVar[str]

    def __init__(self, detail: str, *, retry_after_seconds: int | None = None, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.members = members
        """Extra members of the problem document: only what a client can act on."""
        self.replayed = False
        """True when this is the remembered answer to an earlier run of the same request."""
        self.headers: dict[str, str] = {}
        """Header fields that say the same to machines."""
        self.subject: object = None
        """The transaction that was refused, where a command holds several."""
        self.incident: tuple[str, str] | None = None
        """What the security log calls this failure and whom it concerns, where status and code do not say it."""

    def concerning(self, name: str, about: str) -> Self:
        """Tell the security log more than the caller is told."""
        self.incident = (name, about)
        return self


class CallerError(GuerdonError):
    """The caller must change the request."""


class BusinessError(GuerdonError):
    """The books refuse the request as they stand."""


class OperationsError(GuerdonError):
    """The service cannot do it now."""


# --- the caller's ---------------------------------------------------------------------------------------------------


class MalformedJson(CallerError):
    code = "malformed-json"
    status = 400
    title = "Malformed JSON"
    page = (
        "The body is not a JSON document that can be read in one way only: a syntax error, a repeated key in an object, "
        "a number that JSON does not know (NaN, Infinity), text that is not UTF-8, or nesting deeper than 32 levels."
    )


class Validation(CallerError):
    code = "validation"
    status = 422
    title = "Invalid request"
    page = (
        "The JSON is well-formed but a value is not acceptable. `errors` lists each problem with a JSON Pointer "
        "(RFC 6901) and a sentence that says what is expected. Amounts are whole numbers of minor units, 1 to 10^15."
    )

    @classmethod
    def at(cls, pointer: str, detail: str, **place: int) -> "Validation":
        """One value is wrong; `pointer` is its JSON Pointer in the body, or the parameter's name, and `place` where it is within it."""
        where = f"{pointer}: " if pointer else ""
        return cls(f"{where}{detail}", errors=[{"pointer": pointer, "detail": detail, **place}])

    def under(self, pointer: str) -> "Validation":
        """The same of a value that is a part of a larger one, which `pointer` names."""
        found = cast(list[dict[str, object]], self.members.get("errors", []))
        errors = [{**each, "pointer": f"{pointer}{each['pointer']}"} for each in found]
        return Validation(f"{pointer}{self.detail}", errors=errors)


class LinesRefused(CallerError):
    code = "lines-refused"
    status = 422
    title = "Lines of the file are not acceptable"
    page = (
        "The file has lines that are not acceptable, and nothing of it was taken over. `lines` has the first hundred of them, each with the "
        "number of its `line` (the first is 1) and a sentence that says what is wrong; `count` says how many there are."
    )


class IdempotencyKeyMissing(CallerError):
    code = "idempotency-key-missing"
    status = 400
    title = "Idempotency-Key is missing or malformed"
    page = (
        "Every POST that moves value needs one `Idempotency-Key` header of 1 to 255 visible ASCII characters, made by the "
        "client before the first attempt. Sending the same key again is always safe. Quotes around the key are optional."
    )


class IdempotencyKeyReused(CallerError):
    code = "idempotency-key-reused"
    status = 422
    title = "Idempotency-Key was used for another request"
    page = (
        "This key already belongs to a request with other content. Nothing was done. Use a new key for a new operation; "
        "repeat the very same bytes to read the first answer again."
    )


class Unauthenticated(CallerError):
    code = "unauthenticated"
    status = 401
    title = "Credentials are missing or not valid"
    page = "Send `Authorization: Bearer …` with a service key or an access token that has not expired."
    is_guess = True
    """False when the credentials were ours and good once. The caller is told the same."""


class SecondFactorNeeded(Unauthenticated):
    code = "second-factor-needed"
    status = 401
    title = "A second factor is needed"
    page = (
        "The e-mail address and the password are right, and whoever they belong to has an authenticator. Log in again with its code, or with a "
        "recovery code, as `code`. A code that is wrong, or was used already, gets this answer too."
    )


class SecondFactorMissing(CallerError):
    code = "second-factor-missing"
    status = 403
    title = "Log in with a second factor"
    page = (
        "This deployment lets those who work here work only in a session that began with a second factor. Enrol one with "
        "`POST /v1/me/totp` and `POST /v1/me/totp/confirm`, and log in again with its code."
    )


class Forbidden(CallerError):
    code = "forbidden"
    status = 403
    title = "Not allowed"
    page = "The credentials are valid but do not carry the scope that this route asks for."


class NotFound(CallerError):
    code = "not-found"
    status = 404
    title = "Not found"
    page = "There is no such thing, or it belongs to somebody else. The two are never told apart."


class MethodNotAllowed(CallerError):
    code = "method-not-allowed"
    status = 405
    title = "Method not allowed"
    page = "The path exists, but not with this method. The `Allow` header lists the methods it has."


class AlreadyExists(CallerError):
    code = "already-exists"
    status = 409
    title = "Already exists"
    page = "Another member or asset has this unique value (`field` says which). Nothing was created."


class BodyTooLarge(CallerError):
    code = "body-too-large"
    status = 413
    title = "Body too large"
    page = "Bodies are limited to 256 KiB, bulk requests to 2 MiB. Split the request."


class RequestTimeout(CallerError):
    code = "request-timeout"
    status = 408
    title = "Request arrived too slowly"
    page = "The body did not arrive in time (`GUERDON_BODY_TIMEOUT_SECONDS`, 10 by default). Nothing was done; send it again."


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
        "The caller has spent a quota; nothing was done. `violated-policies` names it, and after the time that `Retry-After` names the next "
        "request is granted. Most quotas count requests, and `RateLimit-Policy` says how large they are; `second-factor` counts five codes "
        "that were wrong behind a right password, `export` one document a day, and `connections` what a gateway sees open at once."
    )

    @classmethod
    def of(cls, policy: str, detail: str, *, retry_after_seconds: int) -> Self:
        """Name the quota that is spent."""
        return cls(detail, retry_after_seconds=retry_after_seconds, **{"violated-policies": [policy]})


class BadRequest(CallerError):
    code = "bad-request"
    status = 400
    title = "Bad request"
    page = "The request line, a header or a parameter could not be understood."


# --- the business's -------------------------------------------------------------------------------------------------


class InsufficientFunds(BusinessError):
    code = "insufficient-funds"
    status = 409
    title = "Insufficient funds"
    page = "The wallet's available balance is smaller than what is needed. `asset`, `available` and `needed` say by how much."


class BalanceLimit(BusinessError):
    code = "balance-limit"
    status = 409
    title = "Balance limit reached"
    page = "The movement would lift the account above its ceiling (10^18 minor units for a wallet)."


class WalletFrozen(BusinessError):
    code = "wallet-frozen"
    status = 409
    title = "Wallet is frozen"
    page = "An operator has frozen this wallet; no value moves in or out until it is opened again."


class WalletClosed(BusinessError):
    code = "wallet-closed"
    status = 409
    title = "Wallet is closed"
    page = "This wallet was closed at a balance of zero. It stays readable for ever, and nothing moves on it again."


class WalletNotEmpty(BusinessError):
    code = "wallet-not-empty"
    status = 409
    title = "Wallet is not empty"
    page = "Only a wallet with a balance of zero and nothing on hold can be closed. `balance` and `held` say what is there."


class LimitReached(BusinessError):
    code = "limit-reached"
    status = 409
    title = "Limit reached"
    page = (
        "A limit of the wallet would be passed: a spending limit (`period` is `day` or `month`; `limit`, `spent`, `needed` and "
        "`resets_at` say by how much and until when), or the number of lots of different dates or of active holds. Or a member has redeemed "
        "as much of an offer as one may (`period` is `day`, `month` or `ever`; `limit`, `redeemed` and `resets_at` say how much and until when)."
    )


class CaptureLimit(BusinessError):
    code = "capture-limit"
    status = 409
    title = "More than the hold has left"
    page = "A hold can be captured in parts, together at most its amount. `left` says what can still be captured."


class ReversalLimit(BusinessError):
    code = "reversal-limit"
    status = 409
    title = "More than the transaction has left"
    page = "A transaction can be reversed in parts, together at most its amount. `left` says what can still be reversed."


class NotReversible(BusinessError):
    code = "not-reversible"
    status = 409
    title = "Not reversible"
    page = (
        "Only a transaction that has moved value can be reversed. A hold is voided; a freeze is lifted; terms are set anew. The price of a "
        "voucher comes back when the voucher is cancelled."
    )


class ReferenceReused(BusinessError):
    code = "reference-reused"
    status = 409
    title = "Reference was used before"
    page = (
        "A `reference` names one business fact of a member for ever. This one is already on the ledger under another "
        "idempotency key; `transaction_id` says where."
    )


class EventReused(BusinessError):
    code = "event-id-reused"
    status = 422
    title = "Event id was used for another event"
    page = (
        "The `id` of an event is its business key, for ever. An event with this id but other content (or another member) is "
        "already recorded. Sending the same event again answers 200 with the first answer."
    )


class NotApplied(BusinessError):
    code = "not-applied"
    status = 409
    title = "Not applied"
    page = "Another command of the same atomic bulk request was refused, so none of them was applied."


class OfferUnavailable(BusinessError):
    code = "offer-unavailable"
    status = 409
    title = "Offer is not available"
    page = (
        "Vouchers are issued while an offer is active and within its window. `status_now`, `starts_at` and `ends_at` say what it is and when "
        "that is."
    )


class NotEligible(BusinessError):
    code = "not-eligible"
    status = 409
    title = "Not eligible"
    page = (
        "The offer is not for this member, now. `which` is `tier`, and then `tiers` lists those that have it and `tier` is the member's; or it "
        "is `eligibility`, the offer's condition."
    )


class SoldOut(BusinessError):
    code = "sold-out"
    status = 409
    title = "Sold out"
    page = "Everything of this offer has been issued: `stock` says how many that were. Nothing was taken from the member."


class StockBelowIssued(BusinessError):
    code = "stock-below-issued"
    status = 409
    title = "More than that is issued already"
    page = "A stock can be lowered to what has been issued of it and no further. `issued` and `stock` say what is and what was asked for."


class ReferralRefused(BusinessError):
    code = "referral-refused"
    status = 409
    title = "Referral refused"
    page = (
        "A referral is recorded once, before the new member's first purchase, and by somebody who has bought something. `cause` says what "
        "stands in the way: `oneself`, `referred-already`, `not-new` or `referrer-has-not-bought`."
    )


class ApprovalMissing(BusinessError):
    code = "approval-missing"
    status = 409
    title = "A second person has to approve this"
    page = (
        "In this installation a campaign's version decides only after somebody else than who made it has approved it: `POST "
        "/v1/campaigns/{campaign_id}/approve`. `version` says which one waits. Whoever made it cannot approve it, and no service key can."
    )


class NotApplicable(BusinessError):
    code = "not-applicable"
    status = 409
    title = "The voucher is not good for this"
    page = (
        "The voucher is good, but not for this basket. `reason` is `currency` (`currency` says which one it takes), `minimum_basket` "
        "(`minimum` and `amount`), `item` (`sku` is missing in the basket), or `kind`: only a gift card can be loaded into a wallet."
    )


class AgainstPolicy(BusinessError):
    code = "against-policy"
    status = 409
    title = "The offer does not allow it"
    page = (
        "The offer says whether its vouchers can be given back, and whether a use can be taken back, and for how long. `until` is when that "
        "time ended; it is null where the offer does not allow it at all."
    )


class InvalidState(BusinessError):
    code = "invalid-state"
    status = 409
    title = "Not possible in this state"
    page = "The object exists, but its status does not allow this action. `status_now` says what it is."


# --- operations' ----------------------------------------------------------------------------------------------------


class Overloaded(OperationsError):
    code = "overloaded"
    status = 503
    title = "Overloaded"
    page = "The queue is full. Nothing was done. Retry after the time that `Retry-After` names, with the same key."


class StoreUnavailable(OperationsError):
    code = "temporary-reduced-capacity"
    status = 503
    title = "Requests cannot be counted"
    page = (
        "The shared store of request counters does not answer, and this route is not served uncounted. Nothing was done. Retry after the "
        "time that `Retry-After` names."
    )


class OutcomeUnknown(OperationsError):
    code = "outcome-unknown"
    status = 503
    title = "Outcome not known yet"
    page = (
        "The deadline passed before the database answered. The command was applied once or not at all. Retry with the "
        "same key: the answer will tell which."
    )


class DatabaseUnavailable(OperationsError):
    code = "database-unavailable"
    status = 503
    title = "Database unavailable"
    page = "The database cannot be reached or has no primary at the moment. Retry with the same key."


class Internal(OperationsError):
    code = "internal-error"
    status = 500
    title = "Internal error"
    page = "A fault of ours. The log holds the details under the `request_id` of the problem document."


class StartupRefused(OperationsError):
    """The process must not start like this; the message is written for the person at the terminal."""

    code = "startup-refused"
    status = 500
    title = "Start-up refused"
    page = "The configuration or the database is not safe to run on."


class DataDirectoryBusy(StartupRefused):
    """Another running process holds the data directory."""

    code = "data-directory-busy"


def registry() -> dict[str, type[GuerdonError]]:
    """Return every error class that has a code, by code."""

    def walk(cls: type[GuerdonError]) -> Iterator[type[GuerdonError]]:
        for child in cls.__subclasses__():
            yield child
            yield from walk(child)

    return {cls.code: cls for cls in walk(GuerdonError) if "code" in vars(cls)}
