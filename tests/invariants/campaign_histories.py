"""Events on the pure ledger: campaigns of all kinds, purchases and refunds in any order, and what has to be true of the books afterwards."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET

from guerdon.calendar import Calendar
from guerdon.campaigns.caps import cap_accounts
from guerdon.campaigns.domain import EVENTS, Award, RecordedEvent, ShopEvent
from guerdon.campaigns.evaluation import LiveCampaign, Subject, sort_by_priority
from guerdon.campaigns.models import (
    AfterDays,
    Campaign,
    Cap,
    EndOfMonth,
    Expiry,
    FixedAward,
    FormulaAward,
    Pending,
    PendingDays,
    PendingEvent,
    PerAmountAward,
    PercentAward,
    Period,
    Stacking,
)
from guerdon.campaigns.refunds import wallet_of
from guerdon.database import Collection
from guerdon.events.record import EventCodec, RecordRequest, RecordResult
from guerdon.events.replay import ReplayMaterial, canonical, decide_again
from guerdon.events.service import event_command
from guerdon.ledger.decide import WritePlan, decide_batch
from guerdon.ledger.expiry import ExpiredLots, expired_lots
from guerdon.ledger.models import Account, Command, CommandOutcome, CommandResult, Entry
from guerdon.wallets.service import new_account
from tests.invariants.balance_model import Bounds
from tests.invariants.in_memory_ledger import NOW_MS, assert_holds_and_lots, assert_laws

DELIVERED = "delivered"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MEMBERS = [f"mem_{number:032x}" for number in range(3)]
_EVENTS: Collection[RecordedEvent] = Collection(None, RecordedEvent)
STORED = EventCodec(Collection.encode, _EVENTS.decode)


@dataclass(frozen=True)
class Step:
    """Something that happens in the shop: `refund_of` counts back from the end of what has been bought until then, and of what will be."""

    kind: str
    member: int
    amount: int
    days_ago: int
    refund_of: int = 0
    with_next: bool = False
    """It is decided in one batch with the step that follows."""
    waits: int = 0
    """So many hours pass before."""


class Shop:
    """Books in memory, and the campaigns that decide what is earned."""

    def __init__(self, campaigns: Sequence[Campaign], zone: str = "Europe/Berlin") -> None:
        self.calendar = Calendar(zone)
        self.campaigns = sort_by_priority([LiveCampaign.of(campaign) for campaign in campaigns])
        self.now_ms = NOW_MS
        self.accounts: dict[str, Account] = {}
        self.entries: dict[str, Entry] = {}
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}

    @property
    def recorded(self) -> list[RecordedEvent]:
        """Every event, in the order in which they were decided."""
        return [_EVENTS.decode(row) for (collection, _), row in self.documents.items() if collection == EVENTS]

    def record(self, events: Sequence[ShopEvent]) -> list[RecordedEvent]:
        """Decide one batch."""
        plan = self._decide([self._command(event) for event in events])
        self.accounts.update(plan.opened)
        self.accounts.update(plan.moved)
        for entry in plan.entries:
            assert entry.id not in self.entries, "a second change of one number"
            self.entries[entry.id] = entry
        for collection, rows in plan.inserts.items():
            for row in rows:
                assert (collection, row["_id"]) not in self.documents, "a document for the second time"
                self.documents[collection, row["_id"]] = row
        for place, change in plan.changes.items():
            known = self.documents.get(place, {"_id": change.id, "owner": change.owner})
            assert known.get("count") == change.count, "a document that has moved on since it was read"
            self.documents[place] = {**known, **change.fields}
        return [_event_of(verdict) for verdict in plan.results]

    def preview(self, event: ShopEvent) -> RecordedEvent:
        """Decide, and write nothing."""
        return _event_of(self._decide([self._command(event, preview=True)]).results[0])

    def _command(self, event: ShopEvent, *, preview: bool = False) -> Command[RecordResult]:
        found = self.documents.get((EVENTS, event.about or ""))
        recording = RecordRequest(
            event=event,
            owner=event.member_id or "",
            subject=Subject(event.member_id),
            actor="key_tests",
            fingerprint=repr(event).encode()[:16],
            campaigns=self.campaigns,
            judged_at=self.now_ms,
            calendar=self.calendar,
            original=None if found is None else _EVENTS.decode(found),
            expired={} if found is None or event.refund_of is None else self._expired(_EVENTS.decode(found)),
            preview=preview,
        )
        return event_command(recording, new_account, STORED)

    def _expired(self, purchase: RecordedEvent) -> dict[str, ExpiredLots]:
        """What has expired of the wallets of a purchase, from their entries."""
        found: dict[str, ExpiredLots] = {}
        for award in purchase.awards:
            name = wallet_of(award, purchase.owner)
            booked = [
                lot
                for entry in self.entries.values()
                if entry.account == name and entry.kind == "expiry"
                for lot in entry.lots or ()
            ]
            found[name] = expired_lots(self.accounts[name], booked, self.now_ms, self.calendar)
        return found

    def _decide(self, commands: Sequence[Command[RecordResult]]) -> WritePlan:
        """A batch is given only what it has asked for."""
        names = {name for command in commands for name in command.accounts}
        owners = {owner for command in commands for owner in command.owners}
        places = {(ref.collection, ref.id) for command in commands for ref in command.documents}
        accounts = {name: row for name, row in self.accounts.items() if name in names and row.owner in owners}
        documents = {place: row for place, row in self.documents.items() if place in places}
        return decide_batch(commands, (accounts, {}, documents), self.now_ms, self.calendar)

    # --- what has to be true ------------------------------------------------------------------------------------------

    def assert_laws(self) -> None:
        """The books balance, what the events say was paid is what the entries say, and no cap and no budget was passed."""
        entries = list(self.entries.values())
        moved = {name: account for name, account in self.accounts.items() if account.seq}
        assert_laws(moved, entries, {name: Bounds(-(10**18)) for name in moved})
        assert_holds_and_lots(moved, entries)
        awards = [(event, award) for event in self.recorded for award in event.awards]
        paid: defaultdict[tuple[str, str], int] = defaultdict(int)
        for event, award in awards:
            paid[f"{event.owner}:{award.asset}", award.campaign] += award.amount
        booked: defaultdict[tuple[str, str], int] = defaultdict(int)
        for entry in entries:
            if entry.counterparty == "system:issuer":
                booked[entry.account, entry.metadata["campaign"]] += entry.amount
        assert booked == paid, "what the events say was paid is what was booked"
        self._assert_limits(awards)

    def _assert_limits(self, awards: Sequence[tuple[RecordedEvent, Award]]) -> None:
        campaigns = {live.campaign.id: live.campaign for live in self.campaigns}
        used: defaultdict[str, int] = defaultdict(int)
        for event, award in awards:
            campaign = campaigns[award.campaign]
            assert award.amount <= min((cap.limit for cap in campaign.caps if cap.scope == "event"), default=award.amount)
            for name in award.counted:
                # What was counted by nobody cannot be given back.
                used[name] = max(0, used[name] + award.amount)
            if award.amount > 0:
                counters = cap_accounts(campaign, event.owner, event.occurred_at, self.calendar)
                assert set(award.counted) == {counter.account for counter in counters}
                for counter in counters:
                    assert used[counter.account] <= counter.limit, counter.account
        assert {name: self.accounts[name].balance for name in used} == used, "a counter is the sum of what was counted"

    def assert_decided_again(self) -> None:
        """Every decision comes out again, byte for byte, from what is stored with it."""
        for event in self.recorded:
            assert event.inputs is not None
            found = self.documents.get((EVENTS, event.about or ""))
            original = None if found is None else _EVENTS.decode(found)
            settled = decide_again(event, event.inputs, ReplayMaterial(self.campaigns, Subject(event.owner), original))
            assert canonical(settled) == canonical(event), event.id


def _event_of(result: CommandResult[RecordResult]) -> RecordedEvent:
    assert isinstance(result, CommandOutcome), result
    return result.value.event


def told(event: RecordedEvent) -> bytes:
    """What an event says was decided, but for the names that the ledger has given."""
    return canonical(event)


def events_of(steps: Sequence[Step]) -> list[ShopEvent]:
    """The steps as events, numbered in their order; a linked refund or a delivery is of a purchase of its member, before or after it."""
    bought: defaultdict[int, list[int]] = defaultdict(list)
    for number, step in enumerate(steps):
        if step.kind == "purchase":
            bought[step.member].append(number)
    events: list[ShopEvent] = []
    for number, step in enumerate(steps):
        purchases = bought[step.member]
        linked = purchases[step.refund_of % len(purchases)] if step.kind in ("linked", DELIVERED) and purchases else None
        kind = "refund" if step.kind == "linked" else step.kind
        events.append(
            ShopEvent(
                id=f"e{number}",
                type=kind,
                occurred_at=NOW_MS - step.days_ago * DAY_MS,
                amount=0 if kind in ("visit", DELIVERED) else step.amount,
                currency="GBP",
                refund_of=None if linked is None or kind == DELIVERED else f"e{linked}",
                member_id=MEMBERS[step.member],
                confirms=UNSET if linked is None or kind != DELIVERED else f"e{linked}",
            )
        )
    return events


def campaign(number: int, **changes: Any) -> Campaign:
    """A campaign that pays 100 for everything unless `changes` say otherwise."""
    plain: dict[str, Any] = {
        "id": f"cmp_{number}", "version": 1, "status": "active", "name": "n", "asset": "PTS", "event_types": ["purchase", "refund", "visit"],
        "award": FixedAward(100), "starts_at": None, "ends_at": None, "audience": "true", "condition": "true", "clawback": "debt",
        "created_at": 0, "created_by": "key_tests", "changed_at": 0,
    }  # fmt: skip
    return Campaign(**{**plain, **changes})


# --- anything ---------------------------------------------------------------------------------------------------------

limits = st.sampled_from([1, 30, 99, 100, 150, 250, 1000])
awards = st.one_of(
    st.sampled_from([1, 7, 100]).map(FixedAward),
    st.builds(PerAmountAward, st.sampled_from([1, 3]), st.sampled_from([7, 100]), st.sampled_from(["floor", "ceil", "half_even"])),
    st.sampled_from(["2.5", "33.3333"]).map(PercentAward),
    st.sampled_from(["event.amount / 9", "double(event.amount) / 3.0", "100 / (event.amount - 100)"]).map(FormulaAward),
)


def caps_of(*periods: Period) -> st.SearchStrategy[list[Cap]]:
    """Caps for each event, and for each member in these periods."""
    member_caps = st.builds(Cap, st.just("member"), limits, st.sampled_from(periods))
    return st.lists(member_caps | limits.map(lambda limit: Cap("event", limit)), max_size=3)


budgets = st.none() | limits
expiries: st.SearchStrategy[Expiry | None] = st.sampled_from([None, AfterDays(1), AfterDays(20), EndOfMonth()])
pendings: st.SearchStrategy[Pending | None] = st.sampled_from(
    [None, None, PendingDays(1), PendingDays(14), PendingEvent(DELIVERED, 1), PendingEvent(DELIVERED, 14)]
)
conditions = st.sampled_from(
    ["true", "true", "event.amount > 200", "member.first_purchase", "member.days_since_last >= 2", "event.amount / 0 == 1"]
)
stackings = st.builds(
    Stacking, st.sampled_from([None, "a", "a", "b"]), st.sampled_from(["all", "best", "first"]), st.sampled_from([0, 5])
)


@st.composite
def anything(draw: st.DrawFn) -> list[Campaign]:
    """One to four campaigns that limit, stack, wait, lapse and take back in all ways."""
    return [
        campaign(
            number,
            award=draw(awards),
            caps=draw(caps_of("day", "week", "month", "ever")),
            budget=draw(budgets),
            partial_award=draw(st.booleans()),
            stacking=draw(stackings),
            condition=draw(conditions),
            clawback=draw(st.sampled_from(["none", "up_to_balance", "debt"])),
            pending=draw(pendings),
            expiry=draw(expiries),
            asset=draw(st.sampled_from(["PTS", "PTS", "GBP"])),
        )
        for number in range(draw(st.integers(1, 4)))
    ]


def steps_of(*kinds: str) -> st.SearchStrategy[list[Step]]:
    """A history of these kinds of events."""
    step = st.builds(
        Step,
        st.sampled_from(kinds),
        st.integers(0, len(MEMBERS) - 1),
        st.integers(1, 600) | st.sampled_from([100, 150, 300]),
        st.sampled_from([0, 0, 1, 3, 40]),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from([0, 0, 1, 30]),
    )
    return st.lists(step, min_size=1, max_size=12)
