"""Service of the tier set and of the tiers of members, with the background review."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from guerdon.campaigns.domain import MEMBER_STATES, MemberState
from guerdon.clock import Clock, optional_utc_ms
from guerdon.database import Database, Document, DuplicateKeyError
from guerdon.errors import GuerdonError, Validation
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.ledger.models import Command, Decision, View
from guerdon.ledger.service import Ledger
from guerdon.lifecycle import Definitions
from guerdon.members.service import Members
from guerdon.permissions import Actor
from guerdon.tiers.member_state import (
    TIERS_REF,
    chained,
    history_of,
    member_state_change,
    member_state_lock,
    member_state_of,
    member_state_ref,
    tiers_of,
)
from guerdon.tiers.models import (
    PROGRAMME,
    TIER_CHANGES,
    TIER_SET_VERSIONS,
    TIER_SETS,
    VERSIONS_MAX,
    WALK,
    MemberTierView,
    TierChange,
    TierChangeQuery,
    TierChangeView,
    TierSet,
    TierSetCreate,
    TierSets,
    TierSetVersion,
    view_change,
)
from guerdon.tiers.rules import review, view_tier
from guerdon.wallets.assets import Assets

EFFECTIVE_MS_MAX = 366 * 86_400_000
REVIEW_EVERY_MS = 60_000
REVIEW_BATCH, PASSES_MAX = 500, 200
RECORDED_MAX = 1000
"""Maximum number of a member's tier changes that one list reads."""
WALK_AFTER_MS = 60_000
"""Delay between a change of the tier set and the review of all members, in milliseconds.

Commands that read the previous tier set have been committed or abandoned by then.
"""


class TierSetChange(NamedTuple):
    """The tier set that was in force, if there was one, and the new one."""

    before: TierSet | None
    after: TierSet


class Tiers:
    """Service of tiers."""

    def __init__(self, ledger: Ledger, members: Members, assets: Assets, *, database: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._members = members
        self._assets = assets
        self._clock = clock
        self._definitions = Definitions(database, (TIER_SETS, TierSets), (TIER_SET_VERSIONS, TierSetVersion), noun="tier set")
        self._sets = self._definitions.current
        self._member_states = database.collection(MEMBER_STATES, MemberState)
        self._changes = database.collection(TIER_CHANGES, TierChange)

    # --- the rules --------------------------------------------------------------------------------------------------

    async def replace(self, actor: Actor, body: TierSetCreate) -> TierSetChange:
        """Create a new version of the tier set, in force from `effective_at` on, or at once. It replaces a version that is not yet in force.

        Raises:
            Validation: the points do not ascend, two tiers have the same code, the asset does not exist, or `effective_at` is not within
                the next 366 days.
            InvalidState: another caller changed the tier set at the same time.
        """
        faults = list(_contradictions_of(body))
        if not await self._assets.exists(body.asset):
            faults.append(Validation.at("/asset", f"there is no asset {body.asset}"))
        now_ms = self._clock.now_ms()
        effective_at = optional_utc_ms(body.effective_at, "/effective_at", faults)
        if effective_at is not None and not now_ms < effective_at <= now_ms + EFFECTIVE_MS_MAX:
            faults.append(
                Validation.at("/effective_at", "it lies within the next 366 days; leave it out for tiers that are in force at once")
            )
        if faults:
            raise Validation.all_of(faults)
        current = await self._sets.get(PROGRAMME)
        known = () if current is None else tuple(each for each in current.versions if _in_force(each, now_ms))
        if effective_at is None and known:
            effective_at = max(now_ms, *(each.effective_at or 0 for each in known))
        tiers = TierSet(
            version=1 if current is None else current.count + 1,
            asset=body.asset,
            window=body.window,
            tiers=tuple(body.tiers),
            grace_months=body.grace_months,
            grace_days=body.grace_days,
            effective_at=effective_at,
            created_at=now_ms,
            created_by=actor.id,
        )
        proof = await self._definitions.proof_of(tiers, tiers.version - 1)
        sets = TierSets(count=tiers.version, versions=_newest((*known, tiers)), head=proof.hash)
        archived = TierSetVersion(id=tiers.version, tiers=tiers, proof=proof)
        if current is None:
            try:
                await self._definitions.insert(sets, archived)
            except DuplicateKeyError:
                raise self._definitions.conflict("changed") from None
        else:
            unchanged = {"_id": PROGRAMME, "count": current.count}
            await self._definitions.replace(sets, archived, unchanged=unchanged, status_now="changed")
        return TierSetChange(known[-1] if known else None, tiers)

    async def get_tiers(self) -> tuple[TierSet | None, TierSet | None]:
        """Return the tier set in force and the one that follows; each is None if it does not exist."""
        sets = await self._sets.get(PROGRAMME)
        if sets is None:
            return None, None
        now_ms = self._clock.now_ms()
        present = [each for each in sets.versions if _in_force(each, now_ms)]
        newest = sets.versions[-1]
        return (present[-1] if present else None), None if newest in present else newest

    async def get_codes(self) -> frozenset[str]:
        """Return the codes of the tiers in force and of those that follow."""
        return frozenset(tier.code for tiers in await self.get_tiers() if tiers is not None for tier in tiers.tiers)

    # --- members ----------------------------------------------------------------------------------------------------

    async def get_member_tier(self, actor: Actor, member_id: str) -> MemberTierView:
        """Return a member's current tier, including changes that are not stored yet.

        Raises:
            NotFound: the member does not exist, or is not the caller.
        """
        actor.require_reach(member_id)
        sets, member_state = await self._read(member_id)
        return view_tier(sets, member_state, self._clock.now_ms(), self._ledger.calendar)

    async def list_changes(self, actor: Actor, member_id: str, query: TierChangeQuery) -> tuple[list[TierChangeView], str | None]:
        """Return one page of the changes of a member's tier, newest first, and the cursor of the next page.

        Raises:
            NotFound: the member does not exist, or is not the caller.
            Validation: the cursor does not belong to this list.
        """
        actor.require_reach(member_id)
        sets, member_state = await self._read(member_id)
        before = f"{member_id}#~"
        if query.cursor is not None:
            before = decode_cursor(query.cursor, f"{member_id}#")
        waiting = review(sets, member_state, self._clock.now_ms(), self._ledger.calendar).changes
        first = [view_change(each, recorded=False) for each in reversed(waiting) if each.id < before]
        last = min(before, f"{member_id}#{member_state.tier_changes + 1:06d}")
        where = {"_id": {"$gt": f"{member_id}#", "$lt": last}, "owner": member_id}
        found = await self._changes.find(where, sort=[("_id", -1)], limit=query.limit + 1)
        items = [*first, *(view_change(each, recorded=True) for each in found)]
        ids = [*(each.id for each in reversed(waiting) if each.id < before), *(each.id for each in found)]
        more = len(items) > query.limit
        return items[: query.limit], encode_cursor(ids[query.limit - 1]) if more else None

    async def list_recorded(self, member_id: str) -> list[TierChange]:
        """Return the recorded changes of a member's tier, newest first, at most `RECORDED_MAX`."""
        where = {"_id": {"$gt": f"{member_id}#", "$lt": f"{member_id}#~"}, "owner": member_id}
        return await self._changes.find(where, sort=[("_id", -1)], limit=RECORDED_MAX)

    async def _read(self, member_id: str) -> tuple[TierSets | None, MemberState]:
        await self._members.get_member(member_id)
        member_state = await self._member_states.find_one({"_id": member_id, "owner": member_id})
        return await self._sets.get(PROGRAMME), member_state or MemberState(id=member_id, owner=member_id)

    # --- the review -------------------------------------------------------------------------------------------------

    async def review_due(self) -> int:
        """Store the tier changes that the passing of time has caused; return the number of members reviewed.

        Only the stored history and member state depend on it: requests compute the current tier.
        """
        return await self._review_changed_by_time() + await self._review_all()

    async def _review_changed_by_time(self) -> int:
        seen = 0
        for _ in range(PASSES_MAX):
            due = {"due_at": {"$gt": 0, "$lte": self._clock.now_ms()}}
            found = self._member_states.raw.find(due, {"_id": 1}, limit=REVIEW_BATCH).sort("due_at")
            members = [str(row["_id"]) async for row in found]
            await self._review(members)
            seen += len(members)
            if len(members) < REVIEW_BATCH:
                break
        return seen

    async def _review_all(self) -> int:
        """Review all members after a change of the tier set. An interrupted review continues in the next run."""
        sets = await self._sets.get(PROGRAMME)
        if sets is None or self._clock.now_ms() < sets.versions[-1].created_at + WALK_AFTER_MS:
            return 0
        progress_row = await self._sets.raw.find_one({"_id": WALK}) or {}
        if progress_row.get("version") == sets.count and progress_row["after"] is None:
            return 0
        after, seen = progress_row["after"] if progress_row.get("version") == sets.count else "", 0
        while after is not None:
            found = self._member_states.raw.find({"_id": {"$gt": after}}, {"tier_version": 1}, limit=REVIEW_BATCH).sort("_id")
            rows: list[Document] = [row async for row in found]
            members = [str(row["_id"]) for row in rows if row.get("tier_version", 0) != sets.count]
            await self._review(members)
            seen += len(members)
            after = str(rows[-1]["_id"]) if len(rows) == REVIEW_BATCH else None
            await self._sets.raw.update_one({"_id": WALK}, {"$set": {"version": sets.count, "after": after}}, upsert=True)
        return seen

    async def _review(self, members: list[str]) -> None:
        results = await self._ledger.submit_all([self._review_of(member) for member in members]) if members else []
        refused = [result for result in results if isinstance(result, GuerdonError)]
        if refused:
            raise refused[0]

    def _review_of(self, member_id: str) -> Command:
        def decide(view: View) -> Decision:
            member_state = member_state_of(member_id, view)
            progress = review(tiers_of(view), member_state, view.now_ms, self._ledger.calendar)
            if progress.member_state == member_state:
                return Decision()
            decision = Decision(
                inserts=tuple(history_of(progress)), changes=(member_state_change(member_state, progress.member_state),)
            )
            return chained(decision, member_id, view)[0]

        documents = (member_state_ref(member_id), TIERS_REF)
        return Command((member_id,), (member_state_lock(member_id),), decide, documents=documents)


def _in_force(tiers: TierSet, now_ms: int) -> bool:
    return tiers.effective_at is None or tiers.effective_at <= now_ms


def _newest(versions: tuple[TierSet, ...]) -> tuple[TierSet, ...]:
    """Return the newest `VERSIONS_MAX` versions; the oldest of them applies to all earlier times."""
    if len(versions) <= VERSIONS_MAX:
        return versions
    oldest, *others = versions[-VERSIONS_MAX:]
    return (msgspec.structs.replace(oldest, effective_at=None), *others)


def _contradictions_of(body: TierSetCreate) -> Iterator[Validation]:
    """Yield a fault for each tier whose points do not ascend or whose code occurs before."""
    for number, (below, above) in enumerate(zip(body.tiers, body.tiers[1:], strict=False), start=1):
        if above.points <= below.points:
            yield Validation.at(f"/tiers/{number}/points", f"it needs more points than {below.code}, which has {below.points}")
    codes: set[str] = set()
    for number, tier in enumerate(body.tiers):
        if tier.code in codes:
            yield Validation.at(f"/tiers/{number}/code", f"{tier.code} is there twice")
        codes.add(tier.code)
