"""Errors that the service answers with. Each class has a stable code and the text of its page at `/problems/{code}`.

* `CallerError`: the request is wrong. The answer states what to change; nothing was written.
* `BusinessError`: the request is right, but a rule refuses it. The refusal is definite and safe to show to a person.
* `OperationsError`: the service cannot do it now. Retry later, with the same key where value moves.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self, cast

from guerdon.money import AmountText, ScaleOf, scale_unknown


class GuerdonError(Exception):
    """An error with a code, an HTTP status and a page."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    page: ClassVar[str]

    def __init__(self, detail: str | AmountText, *, retry_after_seconds: int | None = None, **members: object) -> None:
        self._wording = None if isinstance(detail, str) else detail
        self.detail = detail if isinstance(detail, str) else detail.text(scale_unknown)
        super().__init__(self.detail)
        self.retry_after_seconds = retry_after_seconds
        self.members = members
        """Further members of the problem document: only what a client can act on."""
        self.replayed = False
        """True if this is the remembered answer to an earlier run of the same request."""
        self.headers: dict[str, str] = {}
        """Header fields of the answer."""
        self.subject: object = None
        """The refused transaction of a command with several."""
        self.incident: tuple[str, str] | None = None
        """Name and subject of the event in the security log, where status and code do not determine them."""

    def write_amounts(self, scale_of: ScaleOf) -> None:
        """Write the amounts of the detail as people read them: `£6.99`. A detail without amounts stays as it is."""
        if self._wording is not None:
            self.detail = self._wording.text(scale_of)
            self.args = (self.detail,)

    def concerning(self, name: str, about: str) -> Self:
        """Set the event of the security log, which the answer does not show."""
        self.incident = (name, about)
        return self


class CallerError(GuerdonError):
    """The caller must change the request."""


class BusinessError(GuerdonError):
    """A rule refuses the request in the present state."""


class OperationsError(GuerdonError):
    """The service cannot do it now."""


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
        where = f"{pointer}: " if pointer else ""
        return cls(f"{where}{detail}", errors=[{"pointer": pointer, "detail": detail, **position}])

    @classmethod
    def of(cls, faults: Sequence[tuple[str, str]]) -> "Validation":
        """Return the error of several values, each given by its pointer and a phrase such as `must be at least 1`."""
        sentences = [f"{pointer}: {words}" if pointer else f"the request {words}" for pointer, words in faults[:3]]
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        return cls("; ".join(sentences) + more, errors=[{"pointer": pointer, "detail": words} for pointer, words in faults])

    def under(self, pointer: str) -> "Validation":
        """Return the same error for a value that is part of a larger one, to which `pointer` points."""
        inner = cast(list[dict[str, object]], self.members.get("errors", []))
        errors = [{**each, "pointer": f"{pointer}{each['pointer']}"} for each in inner]
        return Validation(f"{pointer}{self.detail}", errors=errors)


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


class InsufficientFunds(BusinessError):
    code = "insufficient-funds"
    status = 409
    title = "Insufficient funds"
    page = (
        "The available balance is smaller than the amount. `asset`, `available` and `needed` state both, `wallet` names the wallet."
    )


class BalanceLimit(BusinessError):
    code = "balance-limit"
    status = 409
    title = "Balance limit reached"
    page = "The movement would raise the account above its ceiling (10^18 minor units for a wallet). `asset` names the asset."


class WalletFrozen(BusinessError):
    code = "wallet-frozen"
    status = 409
    title = "Wallet is frozen"
    page = "Staff have frozen this wallet (`wallet`). No value moves in or out until it is unfrozen."


class WalletClosed(BusinessError):
    code = "wallet-closed"
    status = 409
    title = "Wallet is closed"
    page = "This wallet (`wallet`) was closed at a balance of zero. It can be read, but nothing moves on it again."


class WalletNotEmpty(BusinessError):
    code = "wallet-not-empty"
    status = 409
    title = "Wallet is not empty"
    page = (
        "Only a wallet with a balance of zero and no held value can be closed. `balance` and `held` state its value, `wallet` "
        "names it."
    )


class LimitReached(BusinessError):
    code = "limit-reached"
    status = 409
    title = "Limit reached"
    page = (
        "A limit would be exceeded. Spending limit of a wallet: `period` is `day` or `month`, with `limit`, `spent`, `needed` "
        "and `resets_at`. Number of lots of different dates, or of active holds: `limit` alone. Redemptions of an offer by a "
        "member: `period` is `day`, `month` or `ever`, with `limit`, `redeemed` and `resets_at`."
    )


class CaptureLimit(BusinessError):
    code = "capture-limit"
    status = 409
    title = "More than the hold has left"
    page = (
        "A hold can be captured in parts, together at most its amount. `left` is what can still be captured, `needed` what was "
        "asked for."
    )


class ReversalLimit(BusinessError):
    code = "reversal-limit"
    status = 409
    title = "More than the transaction has left"
    page = (
        "A transaction can be reversed in parts, together at most its amount. `left` is what can still be reversed, `amount` "
        "what was asked for."
    )


class NotReversible(BusinessError):
    code = "not-reversible"
    status = 409
    title = "Not reversible"
    page = (
        "Only a transaction that has moved value can be reversed. Void a hold, unfreeze a wallet, set account rules again. "
        "Cancel a voucher to get its price back."
    )


class ReferenceReused(BusinessError):
    code = "reference-reused"
    status = 409
    title = "Reference was used before"
    page = (
        "A `reference` names one business fact of a member permanently. This one is on the ledger under another idempotency "
        "key, as the transaction `transaction_id`."
    )


class EventReused(BusinessError):
    code = "event-id-reused"
    status = 422
    title = "Event id was used for another event"
    page = (
        "The `id` of an event is its permanent business key. An event with this id but other content, or of another member, is "
        "recorded. Sending the same event again answers 200 with the first answer."
    )


class NotApplied(BusinessError):
    code = "not-applied"
    status = 409
    title = "Not applied"
    page = "Another command of the same atomic bulk request was refused, so no command was applied."


class OfferUnavailable(BusinessError):
    code = "offer-unavailable"
    status = 409
    title = "Offer is not available"
    page = "An offer can be redeemed while it is active and within its window. `status_now`, `starts_at` and `ends_at` state both."


class NotEligible(BusinessError):
    code = "not-eligible"
    status = 409
    title = "Not eligible"
    page = (
        "The offer is not available to this member now. `which` is `tier`, with the `tiers` of the offer and the member's "
        "`tier`; or it is `eligibility`, the offer's condition."
    )


class SoldOut(BusinessError):
    code = "sold-out"
    status = 409
    title = "Sold out"
    page = (
        "All vouchers of this offer are issued; `stock` is their number. Nothing was taken from the member. For a code batch, "
        "`left` is the number that can still be made and `wanted` what was asked for."
    )


class StockBelowIssued(BusinessError):
    code = "stock-below-issued"
    status = 409
    title = "More than that is issued already"
    page = "A stock cannot be lower than the number of issued vouchers. `issued` is that number, `stock` what was asked for."


class ReferralRefused(BusinessError):
    code = "referral-refused"
    status = 409
    title = "Referral refused"
    page = (
        "A referral is recorded once, before the new member's first purchase, and for a referrer who has bought something. "
        "`cause` is `oneself`, `referred-already`, `not-new` or `referrer-has-not-bought`."
    )


class ApprovalMissing(BusinessError):
    code = "approval-missing"
    status = 409
    title = "A second person has to approve this"
    page = (
        "In this deployment a version of a campaign takes effect only after a second person has approved it with `POST "
        "/v1/campaigns/{campaign_id}/approve`. `version` is the waiting version. Its creator and service keys cannot approve "
        "it."
    )


class NotApplicable(BusinessError):
    code = "not-applicable"
    status = 409
    title = "The voucher is not good for this"
    page = (
        "The voucher is valid, but not for this basket. `reason` is `currency` (`currency` is the one it accepts), "
        "`minimum_basket` (`minimum` and `amount`), `item` (`sku` is missing in the basket), or `kind`: only a gift card can be "
        "loaded into a wallet."
    )


class AgainstPolicy(BusinessError):
    code = "against-policy"
    status = 409
    title = "The offer does not allow it"
    page = (
        "The offer states whether and how long its vouchers can be cancelled and their use be undone. `until` is the end of "
        "that time, or null where the offer does not allow it at all."
    )


class InvalidState(BusinessError):
    code = "invalid-state"
    status = 409
    title = "Not possible in this state"
    page = "The object exists, but its status does not allow this action. `status_now` is its status."


class Overloaded(OperationsError):
    code = "overloaded"
    status = 503
    title = "Overloaded"
    page = "The queue is full, and nothing was done. Retry after `Retry-After`, with the same key."


class Retry(Overloaded):
    """The state that a command was made from has changed; nothing was written. The service that made the command catches it and reads again."""

    def __init__(self) -> None:
        super().__init__("the state that the command was made from has changed; nothing was done", retry_after_seconds=1)


class StoreUnavailable(OperationsError):
    code = "temporary-reduced-capacity"
    status = 503
    title = "Requests cannot be counted"
    page = (
        "The shared store of rate limits does not answer, and this route is not served without it. Nothing was done. Retry "
        "after `Retry-After`."
    )


class OutcomeUnknown(OperationsError):
    code = "outcome-unknown"
    status = 503
    title = "Outcome not known yet"
    page = (
        "The deadline passed before the database answered. The command was applied once or not at all. Retry with the same key: "
        "the answer states which."
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
    page = "An unexpected fault of the service. Its log has the details under the `request_id` of the problem document."


class StartupRefused(OperationsError):
    """The process must not start. The message is for the person at the terminal."""

    code = "startup-refused"
    status = 500
    title = "Start-up refused"
    page = "The configuration or the database is not safe to run on. The message names the cause."


class DataDirectoryBusy(StartupRefused):
    """Another running process holds the data directory."""

    code = "data-directory-busy"
    title = "Data directory is in use"
    page = "Another running process uses the data directory. The message names it."


def registry() -> dict[str, type[GuerdonError]]:
    """Return every error class that has a code, by code."""

    def walk(cls: type[GuerdonError]) -> Iterator[type[GuerdonError]]:
        for child in cls.__subclasses__():
            yield child
            yield from walk(child)

    return {cls.code: cls for cls in walk(GuerdonError) if "code" in vars(cls)}
