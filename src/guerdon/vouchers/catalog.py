"""The catalog as one member sees it, from one snapshot: offers the member can redeem, and the rejection reason of the others. Pure."""

from collections.abc import Sequence

from guerdon.calendar import Calendar
from guerdon.campaigns.evaluation import Subject
from guerdon.clock import optional_rfc3339
from guerdon.errors import NotFound
from guerdon.ledger.models import Command, Decision, DocumentRef, View
from guerdon.members.models import MEMBERS
from guerdon.offers.models import OFFERS, CatalogueItem, Offer, left_of
from guerdon.vouchers.redeem import RedeemContext, documents_of, ineligible, redemption_counters, rejection_reason, unaffordable


def catalog_command(offers: Sequence[Offer], subject: Subject, calendar: Calendar, now_ms: int) -> Command[list[CatalogueItem]]:
    """Return a command that writes nothing: it reads the state that a redemption of each offer would read, in one snapshot."""
    member = subject.id
    assert member is not None
    counters = [counter for offer in offers for counter in redemption_counters(offer, member, now_ms, calendar)]
    wallets = {f"{member}:{offer.price.asset}" for offer in offers if offer.price is not None}

    def decide(view: View) -> Decision[list[CatalogueItem]]:
        if (MEMBERS, member) not in view.documents:
            raise NotFound("there is no such member")
        context = RedeemContext(member, subject, view, calendar)
        requested = {offer.id: offer for offer in offers}
        items: list[CatalogueItem] = []
        for (collection, offer_id), document in view.documents.items():
            # An offer that has changed meanwhile is left out until the next request: it may need state that was not read.
            if collection == OFFERS and document["count"] == requested[offer_id].count:
                items.append(_item(requested[offer_id], context))
        return Decision(value=sorted(items, key=lambda item: item.id, reverse=True))

    return Command(
        owners=(member, *(offer.id for offer in offers)),
        accounts=(*sorted(wallets), *(counter.account for counter in counters), *(offer.stock_account for offer in offers)),
        decide=decide,
        documents=(*documents_of(offers, member), DocumentRef(MEMBERS, member, member)),
    )


def on_sale(offers: Sequence[Offer], now_ms: int) -> list[Offer]:
    """Return the offers whose window has not ended. An offer that has not begun is among them, with its start."""
    return [offer for offer in offers if offer.ends_at is None or now_ms < offer.ends_at]


def _item(offer: Offer, context: RedeemContext) -> CatalogueItem:
    accounts = context.view.accounts
    counters = redemption_counters(offer, context.member, context.view.now_ms, context.calendar)
    rejection = rejection_reason(offer, context, counters)
    left_for_you: list[int] = []
    for counter in counters:
        if counter.limit is not None:
            account = accounts.get(counter.account)
            left_for_you.append(max(0, counter.limit - (0 if account is None else account.balance)))
    return CatalogueItem(
        id=offer.id,
        name=offer.name,
        kind=offer.kind,
        value=offer.value,
        price=offer.price,
        minimum_basket=offer.minimum_basket,
        description=offer.description,
        images=offer.images,
        starts_at=optional_rfc3339(offer.starts_at),
        ends_at=optional_rfc3339(offer.ends_at),
        voucher_valid_days=offer.voucher_valid_days,
        left=left_of(accounts.get(offer.stock_account)),
        left_for_you=min(left_for_you, default=None),
        affordable=unaffordable(offer, context) is None,
        eligible=ineligible(offer, context) is None,
        available=rejection is None,
        why_not=None if rejection is None else rejection.code,
    )
