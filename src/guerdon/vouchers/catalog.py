"""The catalogue as one member sees it, worked out from one snapshot: what they could redeem, and why not the rest. Pure."""

from collections.abc import Sequence

from guerdon.calendar import Calendar
from guerdon.campaigns.evaluation import Subject
from guerdon.errors import GuerdonError, NotFound
from guerdon.ledger.models import Command, Decision, DocumentRef, View
from guerdon.members.models import MEMBERS
from guerdon.offers.models import OFFERS, CatalogueItem, Offer, left_of, optional_time
from guerdon.vouchers.redeem import RedeemContext, documents_of, ineligible, redemption_counters, rejection_reason, unaffordable


def catalogue_command(offers: Sequence[Offer], subject: Subject, calendar: Calendar, now_ms: int) -> Command[list[CatalogueItem]]:
    """A command that writes nothing: the ledger reads for it what a redemption would be judged on, of all offers at once."""
    member = subject.id
    assert member is not None
    counters = [counter for offer in offers for counter in redemption_counters(offer, member, now_ms, calendar)]
    wallets = {f"{member}:{offer.price.asset}" for offer in offers if offer.price is not None}

    def decide(view: View) -> Decision[list[CatalogueItem]]:
        if (MEMBERS, member) not in view.documents:
            raise NotFound("there is no such member")
        seen = RedeemContext.of(subject, view, calendar)
        known = {offer.id: offer for offer in offers}
        items: list[CatalogueItem] = []
        for (collection, name), document in view.documents.items():
            # One that was changed within the second is shown the next time: it may ask for what was not read.
            if collection == OFFERS and document["count"] == known[name].count:
                items.append(_item(known[name], seen))
        return Decision(value=sorted(items, key=lambda item: item.id, reverse=True))

    return Command(
        owners=(member, *(offer.id for offer in offers)),
        accounts=(*sorted(wallets), *(counter.account for counter in counters), *(offer.stock_account for offer in offers)),
        decide=decide,
        documents=(*documents_of(offers, member), DocumentRef(MEMBERS, member, member)),
    )


def on_sale(offers: Sequence[Offer], now_ms: int) -> list[Offer]:
    """The offers whose window is not over: one that is still to come is shown with its beginning."""
    return [offer for offer in offers if offer.ends_at is None or now_ms < offer.ends_at]


def _item(offer: Offer, seen: RedeemContext) -> CatalogueItem:
    counters = redemption_counters(offer, seen.member, seen.now_ms, seen.calendar)
    hindrance: GuerdonError | None = rejection_reason(offer, seen, counters)
    left_for_you = [max(0, counter.limit - seen.redeemed(counter)) for counter in counters if counter.limit is not None]
    return CatalogueItem(
        id=offer.id,
        name=offer.name,
        kind=offer.kind,
        value=offer.value,
        price=offer.price,
        minimum_basket=offer.minimum_basket,
        description=offer.description,
        images=offer.images,
        starts_at=optional_time(offer.starts_at),
        ends_at=optional_time(offer.ends_at),
        voucher_valid_days=offer.voucher_valid_days,
        left=left_of(seen.accounts.get(offer.stock_account)),
        left_for_you=min(left_for_you, default=None),
        affordable=unaffordable(offer, seen) is None,
        eligible=ineligible(offer, seen) is None,
        available=hindrance is None,
        why_not=None if hindrance is None else hindrance.code,
    )
