"""The books as a dictionary: what every movement must end in. It shares no code with the ledger that it is compared with."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["credit", "debit", "transfer"]


@dataclass(frozen=True)
class Spec:
    """One movement that a caller asks for."""

    kind: Kind
    wallet: str
    amount: int
    key: str
    to: str | None = None
    reference: str | None = None

    @property
    def owner(self) -> str:
        return self.wallet.partition(":")[0]

    @property
    def content(self) -> tuple[object, ...]:
        return (self.kind, self.wallet, self.amount, self.to, self.reference)


@dataclass(frozen=True)
class Answer:
    """`code` is None when it was done; `after` is the balance and the seq that the first wallet had right after."""

    code: str | None
    after: tuple[int, int] | None = None
    replayed: bool = False


@dataclass
class Bounds:
    """What an account may hold."""

    floor: int = 0
    ceiling: int = 10**18
    frozen: bool = False


@dataclass
class Model:
    """Balances, keys and references; `bounds` names the wallets that have bounds of their own."""

    bounds: dict[str, Bounds] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[tuple[object, ...], Answer]] = field(default_factory=dict)
    references: set[tuple[str, str]] = field(default_factory=set)

    def apply(self, spec: Spec) -> Answer:
        """One movement on its own; a refusal of the books is remembered under its key."""
        known = self.recall(spec)
        if known is not None:
            return known
        code = self._reference_code(spec) or self._missing_code(spec) or self._move(spec)
        answer = Answer(code) if code else Answer(None, self._after(spec))
        if code != "not-found":
            self.keys[spec.owner, spec.key] = (spec.content, answer)
        if code is None and spec.reference is not None:
            self.references.add((spec.owner, spec.reference))
        return answer

    def apply_atomically(self, specs: list[Spec]) -> list[Answer] | str:
        """All or nothing: the answers, or the code of the first refusal, which is never remembered. Keys and references are looked at first.

        A wallet that one of them puts value into exists for those that come after it.
        """
        known = []
        used: set[tuple[str, str, str | None]] = set()
        for spec in specs:
            earlier = self.recall(spec)
            code = earlier.code if earlier else self._reference_code(spec)
            code = code or self._twice_code(spec, used)
            if code is not None:
                return code
            used |= {("key", spec.owner, spec.key)} | ({("ref", spec.owner, spec.reference)} if spec.reference else set())
            known.append(earlier)
        if all(known):
            return [answer for answer in known if answer is not None]
        if any(known):
            return "idempotency-key-reused"
        before = (dict(self.balances), dict(self.seqs), dict(self.keys), set(self.references))
        answers = []
        opened: set[str] = set()
        for spec in specs:
            code = self._missing_code(spec, opened) or self._move(spec)
            if code is not None:
                self.balances, self.seqs, self.keys, self.references = before
                return code
            if spec.kind != "debit":
                opened.add(spec.to or spec.wallet)
            answers.append(Answer(None, self._after(spec)))
            self.keys[spec.owner, spec.key] = (spec.content, answers[-1])
            self.references |= {(spec.owner, spec.reference)} if spec.reference else set()
        return answers

    def recall(self, spec: Spec) -> Answer | None:
        """What is known under the key, if it is."""
        if (spec.owner, spec.key) not in self.keys:
            return None
        content, answer = self.keys[spec.owner, spec.key]
        return Answer(answer.code, answer.after, replayed=True) if content == spec.content else Answer("idempotency-key-reused")

    @staticmethod
    def _twice_code(spec: Spec, used: Collection[tuple[str, str, str | None]]) -> str | None:
        """A key or a reference that an earlier movement of the same group has used."""
        if ("key", spec.owner, spec.key) in used:
            return "idempotency-key-reused"
        return "reference-reused" if ("ref", spec.owner, spec.reference) in used else None

    def _after(self, spec: Spec) -> tuple[int, int]:
        return self.balances[spec.wallet], self.seqs[spec.wallet]

    def _reference_code(self, spec: Spec) -> str | None:
        return "reference-reused" if (spec.owner, spec.reference) in self.references else None

    def _missing_code(self, spec: Spec, opened: Collection[str] = ()) -> str | None:
        """Value may flow into a wallet that is not there yet, never out of it."""
        there = spec.kind == "credit" or spec.wallet in self.balances or spec.wallet in opened
        return None if there else "not-found"

    def _move(self, spec: Spec) -> str | None:
        """Move the value, or tell the refusal and change nothing."""
        moves = [(spec.wallet, spec.amount if spec.kind == "credit" else -spec.amount)]
        if spec.to is not None:
            moves.append((spec.to, spec.amount))
        for wallet, amount in moves:
            bounds, balance = self.bounds.get(wallet, Bounds()), self.balances.get(wallet, 0)
            if bounds.frozen:
                return "wallet-frozen"
            if amount < 0 and balance + amount < bounds.floor:
                return "insufficient-funds"
            if amount > 0 and balance + amount > bounds.ceiling:
                return "balance-limit"
        for wallet, amount in moves:
            self.balances[wallet] = self.balances.get(wallet, 0) + amount
            self.seqs[wallet] = self.seqs.get(wallet, 0) + 1
        return None
