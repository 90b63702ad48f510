"""Comparison of the states of accounts and members with the documents that they are derived from, and what the views do not have yet."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, convert, field

from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, TIER_CHANGES
from guerdon.campaigns.domain import MEMBER_STATES as STANDINGS
from guerdon.database import Database, Document, Session
from guerdon.ledger.lots import UNDATED
from guerdon.ledger.models import Lot, LotDates, entry_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.projections.models import Increment, Source, Target, ViewGroup
from guerdon.reports.check.comparison import Difference, ReportDifference
from guerdon.views.group import decode_entry, decode_event, decode_tier_change, decode_void
from guerdon.views.models import ACCOUNT_STATES, MEMBER_STATES, AccountReadModel, MemberReadModel

PAGE = 1_000
PENDING_MAX = 50_000
"""Maximum number of documents that the views may lack. Above that they are not compared."""
_DECODERS: dict[str, Callable[[Document], Any]] = {
    EVENTS: decode_event,
    EVENT_VOIDS: decode_void,
    TIER_CHANGES: decode_tier_change,
}
"""Functions that decode the documents of members, by collection."""
MONEY_KINDS = frozenset({"wallet", "gift_card"})


class ViewsBehind(Exception):
    """The views lack too many documents to be compared."""


class HeldRow(Struct, frozen=True):
    """Hold on an account: its dated value."""

    lots: tuple[Lot, ...] = ()


class AccountRow(Struct, frozen=True):
    """Account as far as its state is compared with it."""

    id: str = field(name="_id")
    owner: str
    asset: str
    kind: str
    balance: int
    held: int
    seq: int
    at: int
    lots: tuple[Lot, ...] | None = None
    holds: tuple[HeldRow, ...] = ()


class Pending:
    """Changes that documents make which the views do not have yet."""

    def __init__(self) -> None:
        self.documents = 0
        self.increments: list[Increment] = []
        self.accounts: list[tuple[AccountReadModel | None, AccountReadModel]] = []
        """States before and after."""
        self.members: list[tuple[MemberReadModel | None, MemberReadModel]] = []

    def fold(self, source: Source[Any], state: Any, documents: Sequence[Any]) -> Any:
        """Return the state after the documents."""
        self.documents += len(documents)
        if self.documents > PENDING_MAX:
            raise ViewsBehind
        for document in documents:
            folded = source.fold(state, document, Target(0, 0))
            state = folded.state
            self.increments += folded.increments
        return state


class SubjectCheck:
    """Compares the states of one version, page by page."""

    def __init__(self, database: Database, group: ViewGroup, version: int, session: Session, report: ReportDifference) -> None:
        self._database = database
        self._entries, self._events = group.sources
        self._version = version
        self._session = session
        self._report = report
        self.pending = Pending()
        self.accounts = self.members = 0
        """Numbers of states that were compared."""

    # --- accounts ---------------------------------------------------------------------------------------------------

    async def check_accounts(self) -> None:
        fields = dict.fromkeys(("owner", "asset", "kind", "balance", "held", "seq", "at", "lots", "holds.lots"), 1)
        after = ""
        while True:
            rows = self._database.raw[ACCOUNTS].find(
                {"_id": {"$gt": after}}, fields, sort=[("_id", 1)], limit=PAGE, session=self._session
            )
            page = [convert(row, AccountRow) async for row in rows]
            if not page:
                break
            after = page[-1].id
            states = await self._states(ACCOUNT_STATES, AccountReadModel, [row.id for row in page])
            for row in page:
                state = states.get(row.id)
                if state is not None:
                    self.accounts += 1
                if row.seq > (0 if state is None else state.seq):
                    await self._fold_account(row, state)
                elif state is not None:
                    self._check_account(row, state)
        await self._check_number(ACCOUNT_STATES, self.accounts)

    async def _states(self, collection: str, kind: type[Any], subjects: Sequence[str]) -> dict[str, Any]:
        ids = [f"{self._version}|{subject}" for subject in subjects]
        rows = self._database.raw[collection].find({"_id": {"$in": ids}}, session=self._session)
        return {row["_id"].partition("|")[2]: convert(row, kind) async for row in rows}

    async def _fold_account(self, row: AccountRow, state: AccountReadModel | None) -> None:
        """Apply the entries that the views do not have, and compare the state after them."""
        mark = 0 if state is None else state.seq
        where = {"_id": {"$gt": entry_id(row.id, mark), "$lte": entry_id(row.id, row.seq)}}
        rows = self._database.raw[ENTRIES].find(where, sort=[("_id", 1)], session=self._session)
        after = self.pending.fold(self._entries, state, [decode_entry(each) async for each in rows])
        if after is None:
            self._report(Difference("marks", row.id, f"the account has seq {row.seq}, but no entry"))
            return
        self.pending.accounts.append((state, after))
        self._check_account(row, after)

    def _check_account(self, row: AccountRow, state: AccountReadModel) -> None:
        for name in ("seq", "owner", "asset", "kind", "balance", "held", "at"):
            found, expected = getattr(state, name), getattr(row, name)
            if found != expected:
                view = "marks" if name == "seq" else ACCOUNT_STATES
                self._report(Difference(view, row.id, f"{name} is {found}, the account has {expected}"))
        if row.kind not in MONEY_KINDS:
            return
        queues = {queue.dates: sum(cohort.amount for cohort in queue.cohorts) for queue in state.queues}
        lots = _lots_of(row)
        for dates in queues.keys() | lots.keys():
            if queues.get(dates, 0) != lots.get(dates, 0):
                detail = f"the cohorts of the lot {dates} add up to {queues.get(dates, 0)}, the lot has {lots.get(dates, 0)}"
                self._report(Difference("cohorts of lots", row.id, detail))
        expires = [lot.expires_at for lot in row.lots or () if lot.expires_at is not None]
        if state.next_expires_at != min(expires, default=None):
            detail = f"next_expires_at is {state.next_expires_at}, the lots give {min(expires, default=None)}"
            self._report(Difference(ACCOUNT_STATES, row.id, detail))

    # --- members ----------------------------------------------------------------------------------------------------

    async def check_members(self) -> None:
        after = ""
        while True:
            rows = self._database.raw[STANDINGS].find(
                {"_id": {"$gt": after}}, {"links": 1}, sort=[("_id", 1)], limit=PAGE, session=self._session
            )
            page = {str(row["_id"]): int(row.get("links", 0)) async for row in rows}
            if not page:
                break
            after = max(page)
            states = await self._states(MEMBER_STATES, MemberReadModel, list(page))
            self.members += len(states)
            marks = {member: states[member].number if member in states else -1 for member in page}
            for member, mark in marks.items():
                if mark > page[member]:
                    detail = f"the views have number {mark}, the member's chain ends with {page[member]}"
                    self._report(Difference("marks", member, detail))
            await self._fold_members({member: mark for member, mark in marks.items() if mark < page[member] or mark < 0}, states)
        await self._check_number(MEMBER_STATES, self.members)

    async def _fold_members(self, marks: dict[str, int], states: dict[str, MemberReadModel]) -> None:
        if not marks:
            return
        found: defaultdict[str, list[tuple[int, Any]]] = defaultdict(list)
        for collection, decode in _DECODERS.items():
            rows = self._database.raw[collection].find(_of_members(collection, marks), session=self._session)
            async for row in rows:
                number, member = _number_of(row), str(row["owner"])
                if member in marks and number > marks[member]:
                    found[member].append((number, decode(row)))
        for member, documents in found.items():
            documents.sort(key=lambda each: each[0])
            state = states.get(member)
            after = self.pending.fold(self._events, state, [document for _, document in documents])
            self.pending.members.append((state, after))

    async def _check_number(self, collection: str, expected: int) -> None:
        """Check that no state is left whose account or member does not exist."""
        found = await self._database.raw[collection].aggregate(
            [{"$match": {"version": self._version}}, {"$count": "states"}], session=self._session
        )
        number = sum([int(row["states"]) async for row in found])
        if number != expected:
            self._report(Difference(collection, "all states", f"{number} states, of which {expected} have an account or member"))


def _of_members(collection: str, marks: dict[str, int]) -> Document:
    members = sorted(marks)
    if collection == EVENTS:
        return {"owner": {"$in": members}}
    first, after = ("#", "$") if collection == TIER_CHANGES else ("/", "0")
    return {"_id": {"$gt": members[0] + first, "$lt": members[-1] + after}}


def _number_of(row: Document) -> int:
    proof: Document = row.get("proof") or {}
    return int(proof.get("number", 0))


def _lots_of(row: AccountRow) -> dict[LotDates, int]:
    """Return the value of an account by its dates, held value included."""
    lots: dict[LotDates, int] = {}
    for lot in (*(row.lots or ()), *(lot for hold in row.holds for lot in hold.lots)):
        lots[lot.dates] = lots.get(lot.dates, 0) + lot.amount
    lots[UNDATED] = row.balance - sum(lots.values())
    return lots
