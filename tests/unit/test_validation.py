"""Every fault of a body in plain words, and none where msgspec finds none."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy as copy
from typing import Any

import msgspec
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec import inspect as mi

from guerdon.bulk.models import BulkCreate
from guerdon.errors import Validation
from guerdon.events.models import EventCreate
from guerdon.http.body import decode
from guerdon.http.validation import _JSON_TYPES, FAULTS_MAX, faults_of, raise_body_validation, raise_query_validation
from guerdon.offers.models import OfferCreate
from guerdon.system.openapi import operations_of
from guerdon.types import EXPECTED, PageQuery
from guerdon.wallets.models import CreditCreate, DebitCreate, TransferCreate
from tests.matrix.bodies import samples_of
from tests.tidy.openapi import declared_routes

DECLARED = [each for path, resource, suffix in declared_routes() for each in operations_of(path, resource, suffix).values()]
BODIES = sorted({each.body for each in DECLARED if each.body is not None}, key=lambda kind: kind.__qualname__)
QUERIES = sorted({each.query for each in DECLARED if each.query is not None}, key=lambda kind: kind.__qualname__)
SAMPLES = [(kind, sample.body) for kind in BODIES for sample in samples_of(kind)]
GOOD = {
    "limit": 5,
    "cursor": "abc",
    "at": "2026-01-31T12:00:00Z",
    "kind": "credit",
    "asset": "PTS",
    "since": "2026-01-31T12:00:00Z",
}
PARAMETERS = [(kind, {name: GOOD[name] for name in kind.__struct_encode_fields__ if name in GOOD}) for kind in QUERIES]
CREDIT = {"amount": 500, "reason": "welcome"}
PROGRAMMING = re.compile(r"\b(str|int|bool|float|array|dict|None|regex|type)\b|[\\^$]|`")
VALUES = st.sampled_from([
    None, True, False, 0, -0, 1, -1, 2, 21, 10**15, 10**15 + 1, 2**63, -(2**64), 10**30, 1.0, 0.5, 1e300, "", "0", "a", "ä" * 64, "a" * 129,
    "a" * 2001, "a\nb", "a\n", "\ud800", "\u202e", "PTS", "pts", "GBP", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00", "2026-02-31T12:00:00Z",
    "2026-01-31", "09:00", "fixed", "credit", "days", "never", "day", [], [None], [1, "a"], ["a"] * 60, {}, {"a": "1"}, {"type": "fixed"},
    {"type": 1}, {"a/b~c": "1"}, {"": ""}, {"$gt": 0}, {"a": {"b": []}}, {f"k{number}": "v" for number in range(30)},
])  # fmt: skip
NAMES = st.sampled_from(["", "x", "type", "amount", "a/b", "a~b", "k" * 300, "\ud800", "é", "metadata", "id"])


def faults(kind: type[Struct], body: Any) -> list[tuple[str, str]]:
    with pytest.raises(Validation) as raised:
        decode(json.dumps(body).encode(), kind)
    found: Any = raised.value.members["errors"]
    return [(each["pointer"], each["detail"]) for each in found]


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        (DebitCreate, {}, [("/amount", "is required")]),
        (DebitCreate, {"amount": "5"}, [("/amount", "must be a whole number")]),
        (DebitCreate, {"amount": True}, [("/amount", "must be a whole number")]),
        (DebitCreate, {"amount": 0}, [("/amount", "must be at least 1")]),
        (DebitCreate, {"amount": 10**16}, [("/amount", "must be at most 1,000,000,000,000,000")]),
        (DebitCreate, {"amount": 1, "reason": "a" * 201}, [("/reason", "must be at most 200 characters")]),
        (DebitCreate, {"amount": 1, "reason": ""}, [("/reason", "must not be empty")]),
        (DebitCreate, {"amount": 1, "reason": 5}, [("/reason", "must be text or null")]),
        (DebitCreate, {"amount": 1, "reason": "a\nb"}, [("/reason", "must not contain control or direction-override characters")]),
        (DebitCreate, {"amount": 1, "colour": "red"}, [("/colour", "is not a known field")]),
        (DebitCreate, {"amount": 1, "a/b~c": 1}, [("/a~1b~0c", "is not a known field")]),
        (DebitCreate, {"amount": 1, "metadata": {"a b": "1"}}, [("/metadata/a b", "is not a valid key: it must consist of letters, digits, _ and -")]),
        (DebitCreate, {"amount": 1, "metadata": {"a": 1}}, [("/metadata/a", "must be text")]),
        (
            DebitCreate,
            {"amount": 1, "metadata": {f"k{number}": "" for number in range(21)}},
            [("/metadata", "must have at most 20 keys")],
        ),
        (CreditCreate, {"amount": 1, "source": "gift"}, [("/source", "must be one of: paid, promotional")]),
        (CreditCreate, {"amount": 1, "expires_at": "soon"}, [("/expires_at", "must be a time such as 2026-01-31T12:00:00Z")]),
        (
            CreditCreate,
            {"amount": 1, "expires_at": 5},
            [("/expires_at", "must be a time such as 2026-01-31T12:00:00Z or null")],
        ),
        (BulkCreate, {"commands": []}, [("/commands", "must have at least 1 item")]),
        (BulkCreate, {"commands": [5]}, [("/commands/0", "must be an object")]),
        (BulkCreate, {"commands": [{}]}, [("/commands/0/type", "is required")]),
        (BulkCreate, {"commands": [{"type": "gift"}]}, [("/commands/0/type", "must be one of: credit, debit, transfer")]),
        (BulkCreate, {"commands": {}}, [("/commands", "must be a list")]),
        (EventCreate, {**samples_of(EventCreate)[0].body, "currency": "gbp"}, [("/currency", "must be a three-letter currency code in capitals")]),
        (DebitCreate, [], [("", "must be an object")]),
        (OfferCreate, None, [("", "must be an object")]),
    ],
)  # fmt: skip
def test_a_fault_is_put_in_plain_words(kind: type[Struct], body: Any, found: list[tuple[str, str]]) -> None:
    assert faults(kind, body) == found


def test_every_fault_of_a_body_is_listed() -> None:
    body = {"amount": 0, "from": 1, "to": "a" * 61, "metadata": {"a": 1, "b": "\n"}, "colour": "red"}
    assert faults(TransferCreate, body) == [
        ("/from", "must be text"),
        ("/to", "must be at most 60 characters"),
        ("/amount", "must be at least 1"),
        ("/metadata/a", "must be text"),
        ("/metadata/b", "must not contain control or direction-override characters"),
        ("/colour", "is not a known field"),
    ]


def test_at_most_twenty_faults_are_listed_and_the_detail_names_three() -> None:
    with pytest.raises(Validation) as raised:
        decode(json.dumps({"commands": [{"type": "debit"}] * 1000}).encode(), BulkCreate)
    assert len(raised.value.members["errors"]) == FAULTS_MAX
    wanted = "/commands/0/wallet: is required; /commands/0/amount: is required; /commands/0/key: is required; and 17 more"
    assert raised.value.detail == wanted


def test_a_refusal_of_the_whole_body_reads_as_a_sentence() -> None:
    with pytest.raises(Validation) as raised:
        decode(b"[]", DebitCreate)
    assert raised.value.detail == "the request must be an object"


@pytest.mark.parametrize("digits", ["9" * 5000, "-" + "9" * 5000, "1e400", "-1e400", str(2**64)])
def test_a_number_beyond_every_bound_has_a_fault_of_its_own(digits: str) -> None:
    with pytest.raises(Validation) as raised:
        decode(f'{{"amount": {digits}}}'.encode(), DebitCreate)
    [fault] = raised.value.members["errors"]
    assert fault["pointer"] == "/amount"
    assert fault["detail"].startswith("must be a")


def test_what_only_msgspec_refuses_gets_a_general_text() -> None:
    for raw in (b'{"amount": 1}', b"\xff", b"{"):
        with pytest.raises(Validation) as raised:
            raise_body_validation(DebitCreate, raw)
        assert raised.value.detail == "the request is not acceptable"


def test_a_query_parameter_has_its_name_for_a_pointer() -> None:
    for given_values, wanted in (
        ({"limit": "x"}, {"pointer": "limit", "detail": "must be a whole number"}),
        ({"limit": 101}, {"pointer": "limit", "detail": "must be at most 100"}),
        ({"cursor": ["a", "b"]}, {"pointer": "cursor", "detail": "must be given once"}),
        ({"pages": "1"}, {"pointer": "pages", "detail": "is not a known parameter"}),
    ):
        with pytest.raises(Validation) as raised:
            raise_query_validation(PageQuery, given_values)
        assert raised.value.members["errors"] == [wanted]


# --- agreement with msgspec -------------------------------------------------------------------------------------------


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a body with each of its keys or indices."""
    for key, each in list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(each)


@st.composite
def mutated(draw: st.DrawFn, samples: list[tuple[type[Struct], Any]]) -> tuple[type[Struct], Any]:
    kind, body = draw(st.sampled_from(samples))
    body = copy(body)
    for _ in range(draw(st.integers(0, 4))):
        found = list(places(body))
        if not found:
            break
        node, key = draw(st.sampled_from(found))
        match draw(st.sampled_from(["replace", "remove", "add", "rename", "repeat", "swap"])):
            case "replace":
                node[key] = copy(draw(VALUES))
            case "remove":
                del node[key]
            case "add" if isinstance(node, dict):
                node[draw(NAMES)] = copy(draw(VALUES))
            case "rename" if isinstance(node, dict):
                node[draw(NAMES)] = node.pop(key)
            case "repeat" if isinstance(node, list):
                node.extend([node[key]] * draw(st.integers(1, 60)))
            case "swap":
                other, place = draw(st.sampled_from(found))
                node[key] = copy(other[place]) if place in other or (isinstance(other, list) and place < len(other)) else 0
    return kind, body


def is_refused(kind: type[Struct], body: Any) -> bool:
    try:
        msgspec.json.decode(json.dumps(body).encode(), type=kind)
    except msgspec.ValidationError:
        return True
    except msgspec.DecodeError:
        reject()  # A lone surrogate: the body is not JSON.
    return False


@settings(max_examples=600, deadline=None)
@given(mutated(SAMPLES))
def test_there_is_a_fault_exactly_if_msgspec_refuses_the_body(mutation: tuple[type[Struct], Any]) -> None:
    kind, body = mutation
    found = faults_of(kind, body)
    assert bool(found) == is_refused(kind, body), (kind, body, found)
    assert not [words for _, words in found if PROGRAMMING.search(words)], found
    json.dumps(found, ensure_ascii=False).encode()


@settings(max_examples=150, deadline=None)
@given(mutated(PARAMETERS))
def test_there_is_a_fault_exactly_if_msgspec_refuses_the_parameters(mutation: tuple[type[Struct], Any]) -> None:
    kind, parameters = mutation
    try:
        msgspec.convert(parameters, kind)
        refused = False
    except (msgspec.ValidationError, UnicodeError):
        refused = True
    found = faults_of(kind, parameters, query=True)
    assert bool(found) == refused, (kind, parameters, found)


def test_the_samples_have_no_faults() -> None:
    assert len(SAMPLES) > 50
    assert [(kind, body) for kind, body in SAMPLES if faults_of(kind, body)] == []


# --- completeness -----------------------------------------------------------------------------------------------------


def nodes(kind: mi.Type, words: str | None = None) -> Iterator[tuple[mi.Type, str | None]]:
    """Every declared type below this one, with the words for its pattern."""
    match kind:
        case mi.Metadata():
            yield from nodes(kind.type, (kind.extra or {}).get(EXPECTED))
            return
        case mi.UnionType():
            below = list(kind.types)
        case mi.StructType():
            below = [field.type for field in kind.fields]
        case mi.ListType():
            below = [kind.item_type]
        case mi.DictType():
            below = [kind.key_type, kind.value_type]
        case _:
            below = []
    yield kind, words
    for each in below:
        yield from nodes(each, words if isinstance(kind, mi.UnionType) else None)


def test_every_pattern_of_every_body_and_parameter_has_words() -> None:
    found = {
        (kind.pattern, words)
        for declared in [*BODIES, *QUERIES]
        for kind, words in nodes(mi.type_info(declared))
        if isinstance(kind, mi.StrType) and kind.pattern is not None
    }
    assert len(found) > 20
    assert {pattern for pattern, words in found if words is None} == set()
    assert all(words.startswith("must ") for _, words in found if words is not None)


def test_every_kind_of_type_is_known() -> None:
    found = {type(kind) for declared in [*BODIES, *QUERIES] for kind, _ in nodes(mi.type_info(declared))}
    assert found - {mi.UnionType} <= set(_JSON_TYPES)
