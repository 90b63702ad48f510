"""What a code stands for: a voucher, or one that its first step opens. Pure.

A million codes that nobody uses are a million rows and nothing else: voucher and account of a code are made by its first step, in the same
commit. Both have names that follow from the code, so that two tills at once open the same one.
"""

from msgspec import Struct
from msgspec.structs import replace

from guerdon.ledger.models import Account, DocumentChange, Transaction
from guerdon.offers.code_patterns import parse_pattern
from guerdon.offers.models import Offer
from guerdon.vouchers.codes.bearer_codes import account_of, bearer_id, bearer_voucher, filling_of
from guerdon.vouchers.codes.models import CodeBatch
from guerdon.vouchers.models import VOUCHER_CODES, CodeRow, Voucher


class VoucherOpening(Struct, frozen=True):
    """What the first step of a code writes before itself."""

    account: Account
    """As it is right after the issue."""
    issue: tuple[Transaction, ...]
    code: DocumentChange
    """The code's row names its voucher from now on."""

    @property
    def opened(self) -> Account:
        """As it begins."""
        return replace(self.account, balance=0, seq=0, lots=None)


class FoundVoucher(Struct, frozen=True):
    """A voucher, or what is to become one with its first step."""

    voucher: Voucher
    opening: VoucherOpening | None = None


def open_voucher(row: CodeRow, batch: CodeBatch, offer: Offer, *, actor: str, now_ms: int) -> FoundVoucher:
    """What a code of a batch is, as long as nothing has happened to it. The batch has counted it against the stock."""
    shown = row.id if batch.pattern is None else parse_pattern(batch.pattern).shown(row.id)
    voucher = bearer_voucher(
        offer, bearer_id(row.id), shown, batch=batch.id, expires_at=batch.expires_at, issued_at=batch.created_at
    )
    filling = filling_of(voucher)
    issued = replace(account_of(voucher), balance=voucher.uses, seq=1, lots=filling.lots or None, opened_at=now_ms)
    told = {"offer": offer.id, "voucher": voucher.id, "batch": batch.id}
    issue = Transaction("issue", (filling,), actor, metadata=told)
    return FoundVoucher(
        voucher, VoucherOpening(issued, (issue,), DocumentChange(VOUCHER_CODES, row.id, row.owner, {"voucher": voucher.id}))
    )
