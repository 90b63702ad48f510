"""Commands for the pure ledger, a store of dictionaries to run them on, and the laws, written a second time."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from guerdon.calendar import Calendar
from guerdon.http.idempotency import fingerprint
from guerdon.ledger import references
from guerdon.ledger.atomic import atomic_command
from guerdon.ledger.decide import WritePlan, decide_batch
from guerdon.ledger.models import Account, Command, CommandOutcome, CommandResult, Entry, Idempotency, RecordedRefusal, Transaction
from guerdon.wallets.rules import Movement, command_of, postings_of
from tests.invariants.balance_model import Answer, Bounds, Spec

ACTOR = "key_tests"
NOW_MS = 1_769_860_800_000


def wallet_id(number: int, asset: str = "PTS") -> str:
    return f"mem_{number:032x}:{asset}"


def account_of(wallet: str, bounds: Bounds) -> Account:
    """An empty wallet with bounds of its own."""
    owner, _, asset = wallet.partition(":")
    return Account(
        id=wallet, owner=owner, asset=asset, kind="wallet", minimum_balance=bounds.floor, ceiling=bounds.ceiling, opened_at=NOW_MS
    )


def movement_of(spec: Spec, number: int, opens: dict[str, Account]) -> Movement:
    """The movement that a request for `spec` would become; `number` stands in its metadata."""
    idempotency = Idempotency(spec.owner, ACTOR, spec.key, fingerprint(spec.kind, repr(spec.content).encode()), spec.reference)
    transaction = Transaction(
        kind=spec.kind,
        postings=postings_of(spec.kind, spec.wallet, spec.amount, spec.to),
        actor=ACTOR,
        idempotency=idempotency,
        reason='naïve – ☃ "quoted" \\ /',
        metadata={"z": "1", "a": "ünï", "m": "", "number": str(number)},
    )
    target = None if spec.kind == "debit" else opens.get(spec.to or spec.wallet)
    accounts = tuple(posting.account for posting in transaction.postings)
    return Movement(transaction, idempotency, accounts, () if target is None else (target,))


def owners_of(specs: Sequence[Spec]) -> tuple[str, ...]:
    return tuple({wallet.partition(":")[0] for spec in specs for wallet in (spec.wallet, spec.to) if wallet})


def command_for(specs: Sequence[Spec], first_number: int, bounds: dict[str, Bounds]) -> Command:
    """One spec is a command of its own; several are an atomic group."""
    targets = {spec.to or spec.wallet for spec in specs if spec.kind != "debit"}
    opens = {target: account_of(target, bounds.get(target, Bounds())) for target in targets}
    movements = [movement_of(spec, first_number + place, opens) for place, spec in enumerate(specs)]
    if len(movements) == 1:
        return command_of(movements[0], owners_of(specs))
    parts = [command_of(movement, owners_of([spec])) for movement, spec in zip(movements, specs, strict=True)]
    return atomic_command(parts, Calendar())


class Store:
    """What the database would hold: it gives a batch only what the batch has asked for, and has the same unique indexes."""

    def __init__(self, calendar: Calendar | None = None) -> None:
        self.calendar = calendar or Calendar()
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.accounts: dict[str, Account] = {}
        self.entries: dict[str, Entry] = {}
        self.once: dict[tuple[str, bytes], Entry] = {}
        self.refusals: dict[bytes, RecordedRefusal] = {}

    def commit(self, commands: Sequence[Command], now_ms: int) -> list[CommandResult]:
        wanted = {account for command in commands for account in command.accounts}
        owners = {owner for command in commands for owner in command.owners}
        marks = {mark for command in commands for mark in command.unique_keys}
        accounts = {name: row for name, row in self.accounts.items() if name in wanted and row.owner in owners}
        once: dict[bytes, Entry | RecordedRefusal] = {
            mark: entry for (owner, mark), entry in self.once.items() if owner in owners and mark in marks
        }
        once.update({mark: refusal for mark, refusal in self.refusals.items() if mark in marks})
        places = {(ref.collection, ref.id) for command in commands for ref in command.documents}
        documents = {place: row for place, row in self.documents.items() if place in places}
        for first in references.first_attempts(once, sorted(marks)):
            attempts = [self.once.get((first.owner, mark)) for mark in references.further_keys(first)]
            for entry in [first, *(each for each in attempts if each is not None)]:
                once.update(dict.fromkeys(entry.unique_keys or (), entry))
                ref = references.document_of(entry)
                if (ref.collection, ref.id) in self.documents:
                    documents[ref.collection, ref.id] = self.documents[ref.collection, ref.id]
        plan = decide_batch(commands, (accounts, once, documents), now_ms, self.calendar)
        for entry in plan.entries:
            assert entry.id not in self.entries, "a second change of one number"
            self.entries[entry.id] = entry
            for mark in entry.unique_keys or ():
                assert (entry.owner, mark) not in self.once, "a key or reference for the second time"
                assert mark not in self.refusals, "a success of a key that was refused"
                self.once[entry.owner, mark] = entry
        for refusal in plan.refusals:
            [mark] = refusal.unique_keys
            assert (refusal.owner, mark) not in self.once, "a refusal of a key that has succeeded"
            assert mark not in self.refusals, "a refusal for the second time"
            self.refusals[mark] = refusal
        assert not set(plan.opened) & set(self.accounts), "an account is opened twice"
        assert set(plan.opened) <= set(plan.moved), "an account is opened without an entry"
        assert {entry.account for entry in plan.entries} == set(plan.moved), "a balance moves without an entry"
        self.accounts.update(plan.moved)
        self._write_documents(plan)
        return plan.results

    def _write_documents(self, plan: WritePlan) -> None:
        for collection, rows in plan.inserts.items():
            for row in rows:
                assert (collection, row["_id"]) not in self.documents, "a document for the second time"
                self.documents[collection, row["_id"]] = row
        for place, change in plan.changes.items():
            known = self.documents.get(place, {"_id": change.id, "owner": change.owner})
            self.documents[place] = {**known, **change.fields}


def answer_of(verdict: CommandResult) -> Answer:
    """A verdict on one movement, in the words of the model."""
    if isinstance(verdict, CommandOutcome):
        entry = verdict.entries[0]
        return Answer(None, (entry.balance_after, entry.seq), verdict.replayed)
    return Answer(verdict.code, None, verdict.replayed)


def group_answer_of(verdict: CommandResult) -> list[Answer] | str:
    """A verdict on an atomic group, in the words of the model."""
    if isinstance(verdict, CommandOutcome):
        return [
            answer_of(CommandOutcome((entry,), replayed=verdict.replayed)) for entry in verdict.entries if entry.key is not None
        ]
    return verdict.code


POSITIONAL = [
    "_id",
    "owner",
    "asset",
    "transaction",
    "kind",
    "amount",
    "balance_after",
    "held_after",
    "counter",
    "actor",
    "at",
    "reason",
    "reference",
    "key",
    "fingerprint",
    "metadata",
    "once",
]
OPTIONAL = [
    "pair", "lots", "hold", "reverses", "terms", "spent", "spendable_after", "attempt", "evidence", "effective_at", "sides", "rate",
]  # fmt: skip


def hash_of(entry: Entry) -> bytes:
    """Return the hash of an entry as docs/verify.md defines it, computed with the standard library."""
    return hash_of_row(without_bytes(msgspec.to_builtins(entry, builtin_types=(bytes,))))


def without_bytes(value: Any) -> Any:
    """Return a stored document with its binary values as hexadecimal text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [without_bytes(item) for item in value]
    if isinstance(value, dict):
        return {name: without_bytes(item) for name, item in value.items()}
    return value


def hash_of_row(row: dict[str, Any]) -> bytes:
    """Return the hash of a stored entry, with binary values as hexadecimal text."""
    array = [row.get(name, {} if name == "metadata" else None) for name in POSITIONAL]
    optional = {name: row[name] for name in OPTIONAL if row.get(name) is not None}
    body = json.dumps([*array, optional] if optional else array, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(bytes.fromhex(row["prev"]) + body.encode()).digest()


def assert_laws(accounts: dict[str, Account], entries: Sequence[Entry], bounds: dict[str, Bounds]) -> None:
    """L1, L2, L3, L4 and L6 from nothing but the entries."""
    chains: defaultdict[str, list[Entry]] = defaultdict(list)
    sides: defaultdict[tuple[str, str], int] = defaultdict(int)
    marks: set[tuple[str, bytes]] = set()
    for entry in entries:
        chains[entry.account].append(entry)
        sides[entry.transaction_id, entry.asset] += entry.amount - (entry.amount if entry.counterparty.startswith("system:") else 0)
        for mark in entry.unique_keys or ():
            assert (entry.owner, mark) not in marks, f"L4: {entry.id}"
            marks.add((entry.owner, mark))
    assert not {name: total for name, total in sides.items() if total}, "L1"
    assert set(chains) == set(accounts), "every account was opened by an entry, and every entry has its account"
    for name, account in accounts.items():
        balance, head = 0, bytes(32)
        limits = bounds.get(name, Bounds())
        for place, entry in enumerate(sorted(chains[name], key=lambda each: each.seq), start=1):
            balance += entry.amount
            assert (entry.seq, entry.prev, entry.hash) == (place, head, hash_of(entry)), f"L6: {entry.id}"
            assert entry.balance_after == balance, f"L2: {entry.id}"
            assert limits.floor <= balance <= limits.ceiling, f"L3: {entry.id}"
            assert (entry.owner, entry.asset) == (account.owner, account.asset)
            head = entry.hash
        assert (account.balance, account.seq, account.head) == (balance, len(chains[name]), head), f"L2: {name}"


def assert_holds_and_lots(accounts: dict[str, Account], entries: Sequence[Entry]) -> None:
    """L7 and L10 from nothing but the entries: every lot and every hold, change by change, ends as its account says."""
    chains: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda each: each.id):
        chains[entry.account].append(entry)
    for name, account in accounts.items():
        lots: Classes = {}
        holds: dict[int, tuple[int, Classes]] = {}
        for entry in chains[name]:
            lots = matured(lots, entry.at)
            _follow(entry, lots, holds)
            assert min(lots.values(), default=1) > 0, f"L7: {entry.id}"
            assert entry.held_after == sum(left for left, _ in holds.values()), f"L10: {entry.id}"
        assert lots == matured({lot.dates: lot.amount for lot in account.lots or ()}, account.at), f"L7: {name}"
        told = {hold.seq: (hold.left, {lot.dates: lot.amount for lot in hold.lots}) for hold in account.holds}
        assert told == holds, f"L10: {name}"
        plain = account.balance - account.held - sum(lots.values())
        moments = [hold.expires_at for hold in account.holds] + [until for _, _, until, _ in lots if until is not None]
        for since in sorted({since for _, since, _, _ in lots if since is not None}):
            arriving = {dates: amount for dates, amount in lots.items() if dates[1] == since}
            plain += arriving.pop(("paid", since, None, None), 0)
            if plain < 0 and arriving:
                moments.append(since)
                break
        assert account.due_at == min(moments, default=None), f"due_at: {name}"


Classes = dict[tuple[str, int | None, int | None, int | None], int]


def matured(lots: Classes, now_ms: int) -> Classes:
    """Dates that have passed are forgotten; undated paid value is in no lot."""
    sums: Classes = {}
    for (source, since, *until), amount in lots.items():
        dates = (source, None if since is not None and since <= now_ms else since, *until)
        sums[dates] = sums.get(dates, 0) + amount
    return {dates: amount for dates, amount in sums.items() if amount and dates != ("paid", None, None, None)}


def _follow(entry: Entry, lots: Classes, holds: dict[int, tuple[int, Classes]]) -> None:
    """What one entry does to the lots of its account and to its holds."""
    moved = {lot.dates: lot.amount for lot in entry.lots or ()}
    change = entry.hold
    if change is not None and change.change > 0:
        holds[change.seq] = (change.change, {dates: -amount for dates, amount in moved.items()})
    elif change is not None:
        left, inside = holds.pop(change.seq)
        if entry.amount:
            # What is captured comes out of the hold's own lots.
            assert entry.amount == change.change, entry.id
            for dates, amount in moved.items():
                inside[dates] += amount
                assert inside[dates] >= 0, f"L7: {entry.id}"
            moved = {}
        if entry.kind == "capture" and left + change.change:
            holds[change.seq] = (left + change.change, {dates: amount for dates, amount in inside.items() if amount})
        else:
            assert left + change.change == 0, f"L10: {entry.id}"
    for dates, amount in moved.items():
        until = dates[2]
        if amount < 0 and until is not None and entry.kind != "settlement":
            assert (until <= entry.at) == (entry.kind == "expiry"), f"L7: {entry.id}"
        lots[dates] = lots.get(dates, 0) + amount
        if not lots[dates]:
            del lots[dates]
