"""Offers and vouchers of the sample database, and the values with which their queries are explained."""

from collections.abc import Iterator
from typing import Any

from guerdon.database import Document
from guerdon.ledger.models import Account
from guerdon.ledger.store import ACCOUNTS, encode
from guerdon.offers.models import OFFER_VERSIONS, OFFERS, STOCK
from guerdon.vouchers.models import DEALT_CODES, POOL_CODES, VOUCHER, VOUCHER_CODES, VOUCHERS, pool_id

START_MS = 1_735_689_600_000
"""First moment of the sample: 2025-01-01."""
OFFER_COUNT, OFFERS_ACTIVE = 1000, 20
VOUCHERS_EACH, VOUCHERS_OF_HOT = 2, 2000
PAGE, FILTERED_PAGE, BATCH, IDS_MAX = 51, 501, 100, 500
UNKNOWN_MEMBER = "mem_" + "f" * 32
Cases = Iterator[tuple[str, str, dict[str, Any]]]


def offer_of(number: int) -> str:
    return f"off_{number:032x}"


def voucher_of(owner: str, number: int) -> str:
    """Return the id of a voucher. Ids are in the order of creation, as real ones are."""
    return f"vch_{number:06x}{owner[4:30]}"


def code_of(voucher: str) -> str:
    return voucher[4:].upper()


def offers() -> Iterator[tuple[str, Document]]:
    """Yield the documents of offers, whose number does not depend on the number of entries."""
    for number in range(OFFER_COUNT):
        status = "active" if number % (OFFER_COUNT // OFFERS_ACTIVE) == 0 else "paused" if number % 2 else "draft"
        offer_id = offer_of(number)
        offer = {"_id": offer_id, "owner": offer_id, "version": 1, "count": 1, "status": status, "name": "an offer"}
        yield OFFERS, offer
        yield OFFER_VERSIONS, {"_id": f"{offer_id}/1", "owner": offer_id, "offer": offer}
        yield ACCOUNTS, encode(Account(f"{offer_id}:{STOCK}", offer_id, STOCK, STOCK))
        pooled = {"_id": pool_id(offer_id, 1), "owner": offer_id}
        yield POOL_CODES, {**pooled, "code": f"CODE-{number}"}
        yield DEALT_CODES, {**pooled, "voucher": voucher_of(UNKNOWN_MEMBER, number), "member": UNKNOWN_MEMBER}


def vouchers(owner: str, count: int) -> Iterator[tuple[str, Document]]:
    """Yield `count` vouchers of a member, with their accounts and codes."""
    for number in range(count):
        voucher, offer = voucher_of(owner, number), offer_of(number % OFFER_COUNT)
        account = Account(f"{owner}:uses.{voucher}", owner, f"uses.{voucher}", VOUCHER, balance=1, seq=1)
        yield ACCOUNTS, encode(account)
        issued = {"offer": offer, "account": account.id, "state": "issued", "issued_at": START_MS + number}
        yield VOUCHERS, {"_id": voucher, "owner": owner, "member": owner, **issued}
        yield VOUCHER_CODES, {"_id": code_of(voucher), "owner": owner, "offer": offer, "voucher": voucher}


def cases(hot: str, quiet: str) -> Cases:
    """Yield the cases of a member with 2,000 vouchers, one with 2, and one without vouchers."""
    voucher = voucher_of(quiet, 0)
    known_and_unknown = {
        "offers.get": (offer_of(7), offer_of(10**9)),
        "vouchers.get": (voucher, voucher_of(UNKNOWN_MEMBER, 0)),
        "voucher_codes.get": (code_of(voucher), "NONE"),
        "dealt_codes.get": (pool_id(offer_of(7), 1), pool_id(offer_of(7), 2)),
        "pool_codes.get": (pool_id(offer_of(7), 1), pool_id(offer_of(7), 2)),
    }
    for query, (known, unknown) in known_and_unknown.items():
        yield query, "found", {"id": known}
        yield query, "not found", {"id": unknown}
    for case, count in (("found", 1), ("changed concurrently", 2)):
        yield "offers.change", case, {"id": offer_of(7), "owner": offer_of(7), "count": count}
    yield "offers.first", "first page", {"limit": PAGE}
    yield "offers.next", "deep page", {"before": offer_of(500), "limit": PAGE}
    for status in ("draft", "active"):
        yield "offers.first_by_status", f"{status}, first page", {"status": status, "limit": PAGE}
        yield "offers.next_by_status", f"{status}, deep page", {"status": status, "before": offer_of(500), "limit": PAGE}
    yield "offers.count", "20 of 1,000 are active", {"status": "active"}
    for case, owner in (("2,000", hot), ("2", quiet), ("none", UNKNOWN_MEMBER)):
        yield "vouchers.first", f"{case} vouchers", {"owner": owner, "limit": PAGE}
        yield "vouchers.first", f"{case} vouchers, with a filter", {"owner": owner, "limit": FILTERED_PAGE}
        yield "vouchers.next", f"{case} vouchers, deep page", {"owner": owner, "before": voucher_of(owner, 1000), "limit": PAGE}
        yield "vouchers.export", f"{case} vouchers", {"owner": owner, "after": "", "limit": BATCH}
    voucher_ids = [voucher_of(hot, number) for number in range(IDS_MAX)]
    uses = sorted(f"{hot}:uses.{each}" for each in voucher_ids)
    yield "accounts.some", "500 vouchers", {"ids": uses, "owners": [hot]}
    stocks = [offer_of(number) for number in range(PAGE)]
    yield "accounts.some", "a page of offers", {"ids": [f"{offer}:{STOCK}" for offer in stocks], "owners": stocks}
    known = {"batch.offers": stocks, "batch.members": [hot], "batch.voucher_codes": sorted(map(code_of, voucher_ids))}
    for query, ids in known.items():
        yield query, "1 new", {"ids": ["none"]}
        yield query, f"{len(ids)}, all found", {"ids": ids}
    for case, number in (("found", 0), ("not found", 2 * VOUCHERS_EACH)):
        yield "vouchers.change", case, {"id": voucher_of(quiet, number), "owner": quiet}
    yield from _verification(hot, voucher_ids)


def _verification(hot: str, voucher_ids: list[str]) -> Cases:
    """Yield the cases of `guerdon verify`: a page of vouchers, and the stocks."""
    offers = [offer_of(number) for number in range(PAGE)]
    known = {
        "batch.vouchers": voucher_ids[:1],
        "verify.voucher_accounts": [f"{hot}:uses.{each}" for each in voucher_ids],
        "verify.voucher_codes": sorted(map(code_of, voucher_ids)),
        "verify.dealt_codes": [pool_id(offer, 1) for offer in offers],
        "verify.offer_versions": [f"{offer}/1" for offer in offers],
    }
    for query, ids in known.items():
        yield query, f"{len(ids)}, all found", {"ids": ids}
    yield "verify.vouchers", "a page", {"after": "", "limit": 1000}
    yield "verify.stocks", "all", {"first": "off_", "last": "off`", "kind": STOCK}
    yield "verify.issued", "all", {}
    yield "verify.batched", "all", {}
