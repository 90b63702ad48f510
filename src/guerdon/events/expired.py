"""Expired value in the lots of the awards that a refund takes back. Pure.

The amounts come from the expiry entries of the wallets, which are read before the commit and do not change afterwards. What earlier refunds
have counted of them is a document for each lot, which is read and written in the commit.
"""

from collections.abc import Iterable, Mapping

from msgspec import convert

from guerdon.campaigns.domain import EXPIRED_LOTS, Award, ExpiredLot
from guerdon.campaigns.refunds import lot_name, wallet_of
from guerdon.errors import Retry
from guerdon.ledger.expiry import ExpiredLots
from guerdon.ledger.models import DocumentChange, DocumentRef, View
from guerdon.tiers.member_state import counted_change


def first_expiries(awards: Iterable[Award], owner: str, recorded_at: int, now_ms: int | None) -> dict[str, int]:
    """Return, by wallet, the time since which value of the awards can have expired.

    With a time, only awards that have expired by then count, and no award that waited for an event, because its present expiry is not known
    here. `recorded_at` is the time at which the awards were paid.
    """
    since: dict[str, int] = {}
    for award in awards:
        waited = award.waits is not None
        first = recorded_at if waited else award.expires_at
        if award.amount > 0 and first is not None and (now_ms is None or (first <= now_ms and not waited)):
            wallet = wallet_of(award, owner)
            since[wallet] = min(first, since.get(wallet, first))
    return since


def expired_refs(awards: Iterable[Award], owner: str, expired: Mapping[str, ExpiredLots]) -> list[DocumentRef]:
    """Return the documents of the expired lots that the awards can have been in."""
    refs: dict[str, DocumentRef] = {}
    for award in awards:
        wallet = wallet_of(award, owner)
        amounts = expired[wallet].amounts if wallet in expired else {}
        for expires_at in amounts if award.waits is not None else amounts.keys() & {award.expires_at}:
            name = f"{wallet}/{expires_at}"
            refs[name] = DocumentRef(EXPIRED_LOTS, name, award.to or owner)
    return list(refs.values())


def expired_amounts(awards: Iterable[Award], owner: str, expired: Mapping[str, ExpiredLots], view: View) -> dict[str, int] | None:
    """Return, by lot name, the expired value that no refund has counted yet; None if no award has expired. The awards have their present dates.

    Raises:
        Retry: an award has expired since its wallet was read.
    """
    amounts: dict[str, int] = {}
    for award in awards:
        wallet, account = wallet_of(award, owner), view.accounts.get(wallet_of(award, owner))
        now_ms = max(view.now_ms, 0 if account is None else account.at)
        if award.amount <= 0 or award.waits is not None or award.expires_at is None or award.expires_at > now_ms:
            continue
        found = expired.get(wallet)
        if found is None or found.at < award.expires_at or (found.next_at is not None and found.next_at <= now_ms):
            raise Retry
        counted = _document(wallet, award, owner, view).counted
        amounts[lot_name(award)] = max(0, found.amounts.get(award.expires_at, 0) - counted)
    return amounts or None


def expired_changes(
    awards: Iterable[Award], owner: str, amounts: tuple[Mapping[str, int] | None, Mapping[str, int]], view: View
) -> list[DocumentChange]:
    """Return the writes for what a refund has counted: the expired value before it, and after it."""
    before, after = amounts
    changes: dict[str, DocumentChange] = {}
    for award in awards:
        name = lot_name(award)
        counted = (before or {}).get(name, 0) - after.get(name, 0)
        if counted > 0:
            known = _document(wallet_of(award, owner), award, owner, view)
            now = ExpiredLot(id=known.id, owner=known.owner, count=known.count + 1, counted=known.counted + counted)
            changes[name] = counted_change(EXPIRED_LOTS, now, known.count or None)
    return list(changes.values())


def _document(wallet: str, award: Award, owner: str, view: View) -> ExpiredLot:
    name = f"{wallet}/{award.expires_at}"
    document = view.documents.get((EXPIRED_LOTS, name))
    return ExpiredLot(id=name, owner=award.to or owner) if document is None else convert(document, ExpiredLot)
