"""Refusals of a correct request by a rule."""

from guerdon.errors.base import BusinessError


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
        "Cancel a voucher to get its price back. Void the event of an award, or refund its purchase. A transaction of several "
        "postings, such as an exchange, is reversed whole: send no amount."
    )


class ExchangeLimit(BusinessError):
    code = "exchange-limit"
    status = 409
    title = "Amount cannot be exchanged"
    page = (
        "The amount is outside the bounds of the rate, or gives less than 1 or more than 10^15 minor units. `asset`, `minimum` and "
        "`maximum` state what can be exchanged at once (null for no maximum), `amount` what was asked for."
    )


class RateChanged(BusinessError):
    code = "rate-changed"
    status = 409
    title = "Rate has changed"
    page = (
        "The request names a version of the rate (`rate_version`) that is not the current one, and nothing was exchanged. `rate` "
        "names the rate and `version` its current version. Ask for a new quote and decide again."
    )


class ReferenceReused(BusinessError):
    code = "reference-reused"
    status = 409
    title = "Reference was used before"
    page = (
        "A `reference` names one business fact of a member. This one is on the ledger under another idempotency key, as the "
        "transaction `transaction_id`. It can be used again after that transaction was undone whole."
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


class MonthClosed(BusinessError):
    code = "month-closed"
    status = 409
    title = "Month is closed"
    page = (
        "The change would apply to a month that is closed. A closed month is never opened again; a correction belongs to a later month. "
        "`month` is the month, `closed_through` the last closed one."
    )


class MonthNotOver(BusinessError):
    code = "month-not-over"
    status = 409
    title = "Month is not over"
    page = (
        "A month can be closed when it has ended in the programme's time zone and 90 seconds have passed. `month` is the month, "
        "`closable_at` the time from which it can be closed."
    )


class ClosingOrder(BusinessError):
    code = "closing-order"
    status = 409
    title = "Another month has to be closed first"
    page = (
        "Months are closed in their order, without a gap, from the first closed one on. `month` is the month of the request, `next` the month "
        "that can be closed next."
    )
