"""Bugs to plant: where, what stands there, what takes its place, and the tests that ought to see it, quickest first."""

from typing import NamedTuple

REGRESSIONS = "tests/invariants/test_regressions.py"
EDGES = "tests/invariants/test_ledger_edge_cases.py"
WORLD = "tests/invariants/test_ledger_model.py"
BATCHES = "tests/invariants/test_balance_model.py"
CONCERNS = "tests/invariants/test_mongodb_commands.py"
RACES = "tests/api/test_idempotency.py"
TURNS = "tests/races/test_contention.py"
MACHINE = "tests/invariants/test_ledger_machine.py"
TERMS = "tests/api/test_account_rules.py"
HELD = "tests/api/test_holds.py"
EVENTS = "tests/api/test_events.py"
SIGNING = ("tests/access/test_token_keys.py",)
KEY_FILE = ("tests/access/test_key_file.py",)
KEYS = ("tests/api/test_service_keys.py",)
RECOVERY = ("tests/api/test_password_reset.py",)
SECOND = ("tests/api/test_second_factor.py",)
CONFIRMED, RELEASED = ("tests/invariants/test_confirmations.py",), ("tests/api/test_confirmations.py",)
LATE = ("tests/api/test_refunds_after_expiry.py",)
PRIVACY = ("tests/api/test_erasure.py", "tests/api/test_privacy.py")


class Mutant(NamedTuple):
    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...] = (EDGES, WORLD, BATCHES, REGRESSIONS)


ERASING = "src/guerdon/privacy/service.py"
LEDGER = "src/guerdon/ledger/"
WAYS_BACK, FACTOR = "src/guerdon/password_reset/", "src/guerdon/second_factor/"
DUE, LOTS, LIMITS = LEDGER + "expiry.py", LEDGER + "lots.py", LEDGER + "spending_limits.py"
RULES, MODELS, STORE, COMMITTER = LEDGER + "decide.py", LEDGER + "models.py", LEDGER + "store.py", LEDGER + "committer.py"
HOLDS, REVERSALS = "src/guerdon/holds/rules.py", "src/guerdon/reversals/rules.py"
IDENTITY, TIMES = "src/guerdon/access/", "src/guerdon/access/signing_keys.py"
WALLETS, REWARDS = "src/guerdon/wallets/rules.py", "src/guerdon/events/record.py"
DECIDING, RELEASES = "src/guerdon/campaigns/allocation.py", "src/guerdon/campaigns/releases.py"
CAMPAIGNS = ("tests/api/test_campaigns.py", "tests/api/test_refunds.py")

MUTANTS = (
    # --- guards and conditions ------------------------------------------------------------------------------------------
    Mutant("funds condition dropped", RULES, "if available < needed and not posting.below_minimum:", "if False:"),
    Mutant("funds off by one", RULES, "if available < needed and not", "if available + 1 < needed and not"),
    Mutant("ceiling condition dropped", RULES, "elif account.balance + posting.amount > account.ceiling and posting.amount > 0:", "elif False:"),
    Mutant("freeze ignored", RULES, 'if account.status != "open":\n        _guard_status', 'if account.status == "closed":\n        _guard_status'),
    Mutant("frozen hold cannot be given up", RULES, "voids_hold = posting.hold is not None and posting.hold.seq and not posting.amount", "voids_hold = False"),
    Mutant("close with a balance", RULES, "(account.balance or account.held)", "account.held"),
    Mutant("closed wallet takes terms", RULES, 'if account.status == "closed":\n        raise WalletClosed', 'if account.status == "closed" and posting.terms is None:\n        raise WalletClosed'),
    Mutant("hold not counted in funds", MODELS, "return self.balance - self.held - self.minimum_balance", "return self.balance - self.minimum_balance"),
    Mutant("pending value spendable", MODELS, " - (self.pending if self.lots else 0)", ""),
    Mutant("capture over the hold", RULES, "if captured > hold.left:", "if captured > hold.size:"),
    Mutant("final capture keeps the rest held", RULES, "ends = posting.hold.final or left.left == 0", "ends = left.left == 0", (HELD,)),
    # --- lots -----------------------------------------------------------------------------------------------------------
    Mutant("lot order: latest expiry first", LOTS, "NEVER if lot.expires_at is None else lot.expires_at,", "-NEVER if lot.expires_at is None else -lot.expires_at,"),
    Mutant("lot order: paid before promotional", LOTS, '        lot.source == "paid",\n        lot.available_at or 0,', '        lot.source != "paid",\n        lot.available_at or 0,'),
    Mutant("available one millisecond late", LOTS, "if lot.available_at is not None and lot.available_at <= now_ms:", "if lot.available_at is not None and lot.available_at < now_ms:"),
    Mutant("lapses one millisecond late", DUE, "if lot.expires_at is not None and lot.expires_at <= now_ms):", "if lot.expires_at is not None and lot.expires_at < now_ms):"),
    Mutant("hold ends one millisecond late", DUE, "return sorted(moment for moment in moments if moment <= now_ms)", "return sorted(moment for moment in moments if moment < now_ms)"),
    Mutant("credit that lapses now is taken", WALLETS, "lot.expires_at <= now_ms:", "lot.expires_at < now_ms:"),
    Mutant("grace missing", LOTS, "expires_at=back_at_ms + GRACE_MS if expired else part.expires_at,", "expires_at=part.expires_at,"),
    Mutant("grace from the booking, not from the end", DUE, "back_at_ms=min(now_ms, hold.expires_at))", "back_at_ms=now_ms)"),
    Mutant("grace of six days", LOTS, "GRACE_MS = 7 *", "GRACE_MS = 6 *"),
    Mutant("debt not paid by what arrives", LOTS, "return merge([*arriving, *negated(repayment)])", "return merge(arriving)"),
    Mutant("captured from the end of the hold", RULES, "taken = lots.split(hold.lots, hold.left, captured)", "taken = lots.split(hold.lots[::-1], hold.left, captured)"),
    Mutant("transfer without dates", WALLETS, "Posting(to, amount, wallet, keeps_dates=True)", "Posting(to, amount, wallet)"),
    Mutant("transfer carries a wrong sign", RULES, "lots=lots.negated(taken)) if taken", "lots=taken) if taken"),
    Mutant("refund to undated value", REVERSALS, "lots=parts, restores_spending=restored)", "restores_spending=restored)"),
    Mutant("refund to the lots that lapse first", LOTS, "sorted(parts, key=spend_order, reverse=True)", "sorted(parts, key=spend_order)"),
    Mutant("taken back from any lot", REVERSALS, "lots=lots.last_of(moved, whole, done, whole - done))", "lots=())"),
    # --- time -----------------------------------------------------------------------------------------------------------
    Mutant("due booking skipped", RULES, "_book_expired((*scratch, *decision.accounts_to_expire), plan, state)", "_book_expired(decision.accounts_to_expire, plan, state)"),
    Mutant("sweep books nothing", RULES, "_book_expired((*scratch, *decision.accounts_to_expire), plan, state)", "_book_expired(tuple(scratch), plan, state)"),
    Mutant("due_at forgets holds", DUE, "moments = [hold.expires_at for hold in account.holds]", "moments: list[int] = []"),
    Mutant("a hold begins before its account's newest entry", HOLDS, "now_ms = max(view.now_ms, account.at)\n        posting", "now_ms = view.now_ms\n        posting"),
    # --- limits ---------------------------------------------------------------------------------------------------------
    Mutant("limits not counted", RULES, "        change = (amount, amount)\n", "        change = (0, 0)\n"),
    Mutant("limit off by one", LIMITS, "used + amount > limit:", "used + amount > limit + 1:"),
    Mutant("day and month in UTC", "src/guerdon/calendar.py", "day = self.local(now_ms).date().isoformat()", "day = to_datetime(now_ms).date().isoformat()"),
    Mutant("day never ends", LIMITS, "spent.in_day if spent.day == day else 0", "spent.in_day"),
    Mutant("gives back to another day", LIMITS, "return (amount if spent_names[0] == now[0] else 0,", "return (amount,"),
    Mutant("transfers spend without a limit", WALLETS, "(Posting(wallet, -amount, to, spends=True),", "(Posting(wallet, -amount, to),"),
    Mutant("holds spend without a limit", HOLDS, "Posting(request.wallet, 0, HOLDS, spends=True,", "Posting(request.wallet, 0, HOLDS,"),
    # --- reversals ------------------------------------------------------------------------------------------------------
    Mutant("reversal cap dropped", REVERSALS, "if amount == 0 or amount > whole - done:", "if amount == 0:"),
    Mutant("reversals forget each other", REVERSALS, '{"reversed": done + amount, "at"', '{"reversed": amount, "at"'),
    Mutant("a transfer returns one side", REVERSALS, "                for side in request.sides\n", "                for side in request.sides[:1]\n"),
    # --- once -----------------------------------------------------------------------------------------------------------
    Mutant("retry applies again", RULES, "        return earlier\n    if idempotency.reference", "        return None\n    if idempotency.reference"),
    Mutant("fingerprint ignored", RULES, "if earlier.fingerprint != idempotency.fingerprint:", "if False:"),
    Mutant("reference mark missing", MODELS, "        if self.reference is not None:\n            keys.append", "        if False:\n            keys.append"),
    Mutant("refusal forgotten", RULES, "    plan.refusals.append(remembered)\n    recorded[key_digest] = remembered", "    recorded[key_digest] = remembered"),
    Mutant("a batch does not see itself", RULES, "            state.recorded[unique_key] = entry", "            pass"),
    Mutant("batch order reversed", RULES, "    for position, command in enumerate(commands):", "    for position, command in reversed(list(enumerate(commands))):"),
    Mutant("a refused command changes something", RULES, "scratch: dict[str, Account] = {}", "scratch = state.accounts"),
    # --- the chain and the store ----------------------------------------------------------------------------------------
    Mutant("hash of the wrong field", LEDGER + "entry_hash.py", '"kind", "amount", "balance_after", "held_after", "counter", "actor"', '"kind", "balance_after", "balance_after", "held_after", "counter", "actor"'),
    Mutant("hash without lots", LEDGER + "entry_hash.py", '    "pair", "lots", "hold",', '    "pair", "hold",'),
    Mutant("chain not linked", DUE, "prev=account.head,", "prev=bytes(32),"),
    Mutant("read concern weakened", STORE, '{"level": "snapshot"}', '{"level": "local"}', (CONCERNS,)),
    Mutant("write concern weakened", STORE, "SNAPSHOT, MAJORITY_JOURNALED, PRIMARY)", "SNAPSHOT, None, PRIMARY)", (CONCERNS,)),
    Mutant("unique index dropped", STORE, 'name="once", unique=True,', 'name="once",', ("tests/invariants/test_unique_keys.py",)),
    Mutant("a lost race is told to the caller", COMMITTER, "except WriteRaceLost:\n                pass", "except WriteRaceLost:\n                raise", (TURNS,)),
    Mutant("a command overtakes one that was put off", COMMITTER, "moved.update(accounts)  # Later", "pass  # Later", (TURNS,)),
    Mutant("quiet accounts wait with a contended one", COMMITTER, "if moved.isdisjoint(accounts):", "if False:", (TURNS,)),
    Mutant("a turn goes to whoever asks", LEDGER + "contention.py", '{"$concatArrays": ["$line", own]}', '{"$concatArrays": [own, "$line"]}', (TURNS,)),
    Mutant("a lease waits for no other", LEDGER + "contention.py", '{"$eq": [{"$setIntersection": ["$$value.covered", "$$this.accounts"]}, none]}', '{"$eq": [1, 1]}', (TURNS,)),
    Mutant("an account that nothing guards is kept", LEDGER + "kept_accounts.py", "if not kept.keys() <= plan.moved.keys():", "if False:", (TURNS,)),
    Mutant("a dead holder keeps its turn", LEDGER + "contention.py", "LEASE_MS = 400", "LEASE_MS = 400_000_000", (TURNS,)),
    Mutant("a document changes once", STORE, '"u": {"$set": change.fields},', '"u": {"$setOnInsert": change.fields},', (MACHINE,)),
    Mutant("terms are not stored", STORE, '("lots", "holds", "floor", "ceiling", "status", "limits", "spent")', '("lots", "holds", "status")', (TERMS,)),
    Mutant("hold documents are not ended", HOLDS, 'fields = {"left": 0, "status": "voided"', 'fields = {"left": 0, "status": "held"'),
    Mutant("an event's content is not compared", REWARDS, "recorded.owner != request.owner or recorded.fingerprint != request.fingerprint", "recorded.owner != request.owner", (EVENTS,)),
    # --- faults that were found once, planted again -----------------------------------------------------------------------
    Mutant("found: time in one step", DUE, "for moment in _moments(account, now_ms):", "for moment in _moments(account, now_ms)[-1:]:", (REGRESSIONS, WORLD)),
    Mutant("found: every hold gives back", DUE, "if account.limits is not None and hold.counted_at is not None:", "if account.limits is not None:", (REGRESSIONS, WORLD)),
    Mutant("found: a hold is not counted", RULES, "counted_at = None if details.spent is None else now_ms", "counted_at = None", (REGRESSIONS, WORLD)),
    Mutant("found: refund of a capture gives nothing back", REVERSALS, "counted_at = side.hold.counted_at if side.hold is not None else side.at", "counted_at = side.at", (REGRESSIONS, WORLD)),
    Mutant("found: debt bounded by the ceiling", RULES, "if account.balance + posting.amount < -BALANCE_CEILING:", "if account.balance + posting.amount < -account.ceiling:", (REGRESSIONS, WORLD)),
    Mutant("found: sides of a reversal in two orders", REVERSALS, "lots=lots.last_of(moved, whole, done, whole - done))", "lots=(*moved, lots.Lot(whole - lots.total(moved))))", (REGRESSIONS, WORLD)),
    Mutant("found: clawback uses the credit line", DECIDING, "available = account.spendable + min(account.minimum_balance, 0)", "available = account.spendable", (REGRESSIONS,)),
    Mutant("found: award without a lot", DECIDING, "if wallet.full is not None and lot.dates[:3] not in wallet.full:", "if False:", (REGRESSIONS,)),
    # --- campaigns --------------------------------------------------------------------------------------------------------
    Mutant("a cap has a unit more", "src/guerdon/campaigns/caps.py", "counter.limit - used.get(counter.account, 0)", "counter.limit + 1 - used.get(counter.account, 0)", CAMPAIGNS),
    Mutant("a standing is not compared", "src/guerdon/ledger/store.py", "if change.counted:", "if False:", CAMPAIGNS),
    Mutant("a refund takes twice", "src/guerdon/campaigns/refunds.py", "- done.get(award.campaign, 0)", "", CAMPAIGNS),
    Mutant("more is confirmed than waits", RULES, "not 0 < lot.amount <= waiting or", "lot.amount <= 0 or", CONFIRMED),
    Mutant("a confirmation leaves a debt", RULES, "lots.give((spendable,), account.undated_balance, lot.amount, now_ms)", "(spendable,)", CONFIRMED),
    Mutant("an award is released twice", RELEASES, "    if before is not None:\n", "    if False:\n", RELEASED),
    Mutant("what was refunded is released", RELEASES, " - known.taken.get(award.campaign, 0) +", " +", RELEASED),
    Mutant("what a refund has left is not released", "src/guerdon/campaigns/refunds.py", "        if part.amount + part.expired < due:\n", "        if False:\n", RELEASED),
    Mutant("a lapsed award is taken back", "src/guerdon/campaigns/refunds.py", "    if has_expired(award, now_ms):\n", "    if False:\n", RELEASED),
    Mutant("found: expired value is taken again", "src/guerdon/campaigns/refunds.py", "gone = min(due, expired.get(lot_name(award), 0))", "gone = 0", LATE),
    Mutant("expired value counts for every refund", "src/guerdon/events/expired.py", "        if counted > 0:\n", "        if False:\n", LATE),
    Mutant("returned value forgets its award", LOTS, "first_expires_at=part.granted_until if expired", "first_expires_at=None if expired", LATE),
    Mutant("returned value is not taken first", REWARDS, "*(returned if taken.lot.expires_at is not None else ())", "*()", LATE),
    Mutant("reversed expiry counts", LEDGER + "service.py", "        if restored is not None:\n", "        if False:\n", LATE),
    Mutant("found: refund in another currency", "src/guerdon/events/refund.py", "if original is not None and event.currency != original.currency:", "if False:", CAMPAIGNS),
    Mutant("found: early refund in another currency", "src/guerdon/campaigns/outcome.py", "    same = known.early.get(currency)\n", "    same = next(iter(known.early.values()), None)\n", CAMPAIGNS),
    Mutant("found: money for money of another currency", "src/guerdon/campaigns/evaluation.py", "event.currency != live.turns_money:", "False:", ("tests/api/test_awards.py",)),
    Mutant("an exhausted campaign wins its group", DECIDING, "if offer.amount]", "]", CAMPAIGNS),
    Mutant("found: transferred lots get grace", RULES, "back_at_ms=now_ms if details.reverses else 0", "back_at_ms=now_ms", (REGRESSIONS, WORLD)),
    Mutant("found: matured value is not taken back first", RULES, "first = lots.as_of(posting.lots, now_ms)", "first = lots.mature(posting.lots, now_ms)", (REGRESSIONS, WORLD)),
    Mutant("found: a booked hold has something left", DUE, '{"status": "expired", "left": 0,', '{"status": "expired",', (REGRESSIONS, WORLD)),
    # --- keys -----------------------------------------------------------------------------------------------------------
    Mutant("old key ends before its last token", TIMES, "successor.start + overlap_ms", "successor.start + overlap_ms // 2", SIGNING),
    Mutant("revoked signer is followed by nobody", TIMES, "replace(successor, signs_from=now_ms)", "successor", SIGNING),
    Mutant("rotations at once want one moment", TIMES, "max(now_ms + wait_ms, max(key.start for key in kept) + 1)", "now_ms + wait_ms", SIGNING),
    Mutant("proven tokens outlive their key", IDENTITY + "tokens.py", " and self._keys.find(verified.key.described.kid, now_ms) is verified.key", "", SIGNING),
    Mutant("ended keys are published", IDENTITY + "token_keys.py", "if not key.described.has_ended(now_ms)]", "]", SIGNING),
    Mutant("new key signs before it is known", "src/guerdon/cli/token_keys.py", "MARGIN_SECONDS = 295", "MARGIN_SECONDS = 0", SIGNING),
    Mutant("two commands write the key file at once", "src/guerdon/cli/token_keys.py", "fcntl.flock(descriptor, fcntl.LOCK_EX)", "pass", KEY_FILE),
    Mutant("a broken key file is fatal", IDENTITY + "key_file.py", "except StartupRefused as error:", "except KeyError as error:", KEY_FILE),
    Mutant("key file is read for ever", IDENTITY + "key_file.py", "if state == self._seen:\n            return", "if False:\n            return", KEY_FILE),
    Mutant("keys hand out any scope", IDENTITY + "service.py", "        require_grantable(actor, distinct)\n", "", KEYS),
    Mutant("checksum of a key not looked at", "src/guerdon/ids.py", " and with_checksum(text[:-_CHECKSUM_LENGTH]) == text else None", " else None", KEYS),
    Mutant("a service's keys are not audited", "src/guerdon/middlewares/audit_records.py", " or declared.policy.scope in CONFIGURATION_SCOPES)", ")", KEYS),
    Mutant("every use of a key is written", IDENTITY + "service.py", "if now - (cached.row.last_used_at or 0) >= LAST_USE_MS:", "if True:", KEYS),
    Mutant("audit log keeps keys", "src/guerdon/audit_log/service.py", "{name: redacted(value) for", "{name: value for", ("tests/api/test_secret_leaks.py",)),
    # --- passwords and second factors -----------------------------------------------------------------------------------
    Mutant("a session survives a new password", "src/guerdon/sessions/rules.py", "(session.epoch == member.epoch or session.id == member.spared)", "True", RECOVERY),
    Mutant("a reset token works twice", WAYS_BACK + "service.py", "if not result.deleted_count or not await", "if not await", RECOVERY),
    Mutant("a reset token never expires", WAYS_BACK + "service.py", "return row is not None and self._clock.now_ms() < row.ends_at\n", "return row is not None\n", RECOVERY),
    Mutant("asking looks the address up", WAYS_BACK + "service.py", "await self._outbox.append(ASKED, owner,", "if await self._members.find_by_email(address): await self._outbox.append(ASKED, owner,", RECOVERY),
    Mutant("a letter goes to the disabled", WAYS_BACK + "service.py", "if member is None or member.disabled_at is not None or await", "if member is None or await", RECOVERY),
    Mutant("two workers take one event", "src/guerdon/outbox.py", '{"_id": row.id, "due_at": row.due_at}, change', '{"_id": row.id}, change', RECOVERY),
    Mutant("events keep what they said", "src/guerdon/outbox.py", '{"due_at": True, "sealed": True}}', '{"due_at": True}}', RECOVERY),
    Mutant("a code works twice", FACTOR + "service.py", '{"_id": factor.id, "last_step": {"$lt": step}}', '{"_id": factor.id, "last_step": {"$lte": step}}', SECOND),
    Mutant("a recovery code works twice", FACTOR + "service.py", '"$pull": {"codes": digest}, ', "", SECOND),
    Mutant("codes are guessed in parallel", FACTOR + "service.py", '"$or": [{"tries": {"$lt": TRIES_MAX}}, {"tries_end_at": {"$lte": now}}]', '"$or": [{"tries": {"$lt": 10**9}}]', SECOND),
    Mutant("codes of a minute ago", FACTOR + "rules.py", "DRIFT_STEPS = 1", "DRIFT_STEPS = 2", SECOND),
    Mutant("an unconfirmed factor is asked for", FACTOR + "service.py", "if factor is None or factor.confirmed_at is None:\n            return False", "if factor is None:\n            return False", SECOND),
    # --- people who are forgotten ---------------------------------------------------------------------------------------
    Mutant("an erasure leaves the key", ERASING, '        await self._person_keys.raw.delete_one({"_id": member_id})\n', "", PRIVACY),
    Mutant("an erasure leaves the address claimed", ERASING, '        await self._claims.raw.delete_many({"_id": {"$in": address_claims(member)}, "member": member_id})\n', "", PRIVACY),
    Mutant("an erasure leaves what rooms have", ERASING, "                await self._database.raw[erasable.collection].delete_many(where)", "                pass", PRIVACY),
    Mutant("an erasure frees the external id", ERASING, "        if external_id_until is not None:", "        if False:", PRIVACY),
    Mutant("an erasure leaves the person in", ERASING, '{"erasing_at": asked_at, "disabled_at": asked_at}}', '{"erasing_at": asked_at}}', PRIVACY),
    Mutant("an erasure without a record", ERASING, 'facts={"certificate": sha256},', "facts={},", PRIVACY),
    Mutant("those who work here are erased", ERASING, '{"_id": member_id, "role": "member", "erasing_at": None}', '{"_id": member_id, "erasing_at": None}', PRIVACY),
    Mutant("an erasure is forgotten when its process dies", ERASING, "        return len(tasks)", "        return 0", PRIVACY),
    Mutant("a wish for a password outlives the person", "src/guerdon/outbox.py", ', ErasableRows("outbox_by_address", OUTBOX, about, by="address")', "", PRIVACY),
    Mutant("the next owner of an address inherits devices", "src/guerdon/sessions/guard.py", "return digest(account, member_id)", "return digest(account)", PRIVACY),
    Mutant("an export a day for nobody", "src/guerdon/privacy/exports.py", '"not_before": {"$lte": now}}', '"not_before": {"$lte": now * 2}}', PRIVACY),
    Mutant("an export leaves holds out", "src/guerdon/privacy/exports.py", 'f"hld_{member_id}:")', 'f"hld_{member_id};")', PRIVACY),
    Mutant("an export of one batch", "src/guerdon/privacy/exports.py", "range(1, account.seq + 1, BATCH)", "range(1, min(account.seq, BATCH) + 1, BATCH)", PRIVACY),
    Mutant("a changed log of erasures is believed", "src/guerdon/privacy/rules.py", "if digest_of(view) != view.sha256:", "if False:", PRIVACY),
    Mutant("an export is not audited", "src/guerdon/middlewares/audit_records.py", "    if declared.audited:\n", "    if False:\n", PRIVACY),
    Mutant("a required factor is not", "src/guerdon/sessions/service.py", "session.factor or not self._rules.second_factor_required", "True", SECOND),
)  # fmt: skip
