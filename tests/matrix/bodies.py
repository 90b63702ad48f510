"""Bodies made from the typed structs that routes declare, so that a new route or field is in the tests of every field by itself."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec import inspect as mi

from tests.serving import NOBODY, Route

NOWHERE = f"{NOBODY}:PTS"
TEXTS = {
    "email": "ada@example.com", "password": "staple battery horse", "current_password": "correct horse battery",
    "new_password": "staple battery horse", "wallet": NOWHERE, "from": NOWHERE, "to": NOWHERE, "id": NOBODY, "code": "NEWONE", "asset": "PTS",
    "currency": "GBP", "scopes": "wallets:read", "audience": "true", "condition": "true",
    "event_type": "delivered", "event_types": "purchase", "type": "purchase", "expression": "1", "percent": "2.5", "tier_multipliers": "2", "group": "sale", "refund_of": "order-0", "confirms": "order-0",
    "member_id": NOBODY, "images": "https://1.1.1.1/cup.png", "code_pattern": "##########-##########", "eligibility": "true", "tiers": "gold", "sku": "85123A",
    "unit_cost": "0.5", "value_per_point": "1", "cost_per_point": "0.5", "redemption_rate": "0.97", "valid_from": "2098-01", "month": "2025-01", "report": "roll-forward", "starts": "09:00", "ends": "17:00", "Tier.code": "gold", "ReferralCreate.code": "R0NdVkGqZzCbhfcUPYcEVDa",
    "reservation": f"hld_{NOBODY}:uses.vch_{NOBODY[4:]}:1", "use": f"txn_{NOBODY}:uses.vch_{NOBODY[4:]}:1",
    "pattern": "##########-##########", "hold": f"hld_{NOWHERE}:1", "transaction": f"txn_{NOWHERE}:1",
    **{f"{kind}.{name}": asset for kind in ("ExchangeCreate", "QuoteCreate") for name, asset in (("from", "PTS"), ("to", "GBP"))},
}  # fmt: skip
"""A well-formed value of every text that not just any word would be, by its field, or by its struct and its field."""
TIMES = {
    "occurred_at": "2026-01-31T12:00:00Z",
    "occurred_from": "2026-01-01T00:00:00Z",
    "starts_at": "2026-01-01T00:00:00Z",
    "available_at": "2098-01-01T00:00:00Z",
}
TURNS_MAX = 10
LATER = "2099-01-01T00:00:00Z"


class Leaf(NamedTuple):
    """A place in a body: its JSON Pointer, what may stand there, and the name of the field that it is or is in."""

    pointer: str
    kinds: tuple[mi.Type, ...]
    name: str

    def of(self, *wanted: type[mi.Type]) -> bool:
        return any(isinstance(kind, wanted) for kind in self.kinds)


class Object(NamedTuple):
    """A place where an object with declared fields stands."""

    pointer: str
    struct: mi.StructType


class Sample(NamedTuple):
    """A body that a struct accepts, and the places in it that no earlier sample has shown."""

    body: dict[str, Any]
    leaves: list[Leaf]
    objects: list[Object]

    def with_raw(self, pointer: str, raw: str) -> bytes:
        """The body as JSON with raw text in one place."""
        return json.dumps(replaced(self.body, pointer, "\ufffdhere")).replace(json.dumps("\ufffdhere"), raw).encode()

    def with_value(self, pointer: str, value: Any) -> bytes:
        """The body as JSON with another value in one place, or one more field."""
        return json.dumps(replaced(self.body, pointer, value)).encode()


def replaced(body: Any, pointer: str, value: Any) -> Any:
    copy = json.loads(json.dumps(body))
    *parents, last = pointer.removeprefix("/").split("/")
    node = copy
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[int(last) if isinstance(node, list) else last] = value
    return copy


def samples_of(kind: type[Struct]) -> list[Sample]:
    """Bodies with every field of `kind` in them; as many as are needed to show every alternative."""
    info = bare(mi.type_info(kind))
    assert isinstance(info, mi.StructType)
    samples: list[Sample] = []
    for turn in range(TURNS_MAX):
        body = _value(info, kind.__name__, turn)
        try:
            msgspec.convert(body, kind)
        except msgspec.ValidationError as error:
            raise AssertionError(f"say in tests/matrix/bodies.py what a good value is: {kind.__name__}: {error}") from None
        if body in [sample.body for sample in samples]:
            break
        sample, shown = Sample(body, [], []), [place for each in samples for place in (*each.leaves, *each.objects)]
        for place in _places(info, body, "", ""):
            if place not in shown:
                (sample.leaves if isinstance(place, Leaf) else sample.objects).append(place)
        samples.append(sample)
    return samples


def bodied(routes: list[Route]) -> list[Route]:
    return [route for route in routes if route.operation.body is not None]


def bare(kind: mi.Type) -> mi.Type:
    return bare(kind.type) if isinstance(kind, mi.Metadata) else kind


def alternatives(kind: mi.Type) -> tuple[mi.Type, ...]:
    kind = bare(kind)
    return tuple(bare(each) for each in kind.types) if isinstance(kind, mi.UnionType) else (kind,)


def _value(kind: mi.Type, name: str, turn: int) -> Any:
    """A value of this kind: of several structs the next at each turn, of other alternatives the first."""
    structs = [each for each in alternatives(kind) if isinstance(each, mi.StructType)]
    kind = structs[turn % len(structs)] if structs else alternatives(kind)[0]
    match kind:
        case mi.StructType():
            tag = {kind.tag_field: kind.tag} if kind.tag_field else {}
            values = {field.encode_name: _value(field.type, field.encode_name, turn) for field in kind.fields}
            own = {name: TEXTS[place] for name in values if (place := f"{kind.cls.__name__}.{name}") in TEXTS}
            return {**tag, **values, **own}
        case mi.ListType(max_length=0) | mi.DictType(max_length=0):
            return [] if isinstance(kind, mi.ListType) else {}
        case mi.ListType():
            items = alternatives(kind.item_type)
            return [_value(items[place % len(items)], name, place) for place in range(max(len(items), kind.min_length or 0))]
        case mi.DictType():
            return {f"k{place}": _value(each, name, turn) for place, each in enumerate(alternatives(kind.value_type))}
        case mi.IntType():
            return max(1, kind.ge or 1) if kind.le is None or kind.le >= 1 else kind.le
        case mi.StrType():
            return TEXTS.get(name, "sample")
        case mi.LiteralType():
            return kind.values[0]
        case mi.DateTimeType():
            return TIMES.get(name, LATER)
        case mi.BoolType():
            return True
        case mi.NoneType():
            return None
    raise AssertionError(f"{name}: no test knows what a {kind} is")


def _places(kind: mi.Type, value: Any, pointer: str, name: str) -> Iterator[Leaf | Object]:
    kinds = alternatives(kind)
    match value:
        case dict() if any(isinstance(each, mi.StructType) for each in kinds):
            [struct] = [each for each in kinds if isinstance(each, mi.StructType) and value.get(each.tag_field or "") == each.tag]
            yield Object(pointer, struct)
            for field in struct.fields:
                yield from _places(field.type, value[field.encode_name], f"{pointer}/{field.encode_name}", field.encode_name)
        case dict():
            [mapping] = [each for each in kinds if isinstance(each, mi.DictType)]
            for key, each in value.items():
                yield from _places(mapping.value_type, each, f"{pointer}/{key}", name)
        case list():
            [listing] = [each for each in kinds if isinstance(each, mi.ListType)]
            for place, each in enumerate(value):
                yield from _places(listing.item_type, each, f"{pointer}/{place}", name)
        case _:
            yield Leaf(pointer, kinds, name)
