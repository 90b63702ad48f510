"""Code batches of the sample database, and the values with which their queries are explained."""

from collections.abc import Iterator
from typing import Any

from guerdon.database import Document
from guerdon.vouchers.codes.models import CODE_BATCHES, STAGED_CODES, part_id
from guerdon.vouchers.models import POOL_CODES, VOUCHER_CODES, pool_id
from tools.query_plans.voucher_sample import offer_of

BATCH_COUNT, BATCHES_OPEN, CODES_EACH, CODES_OF_LARGE = 500, 5, 2, 2000
PAGE, READ, SLICE = 51, 1000, 5000
LARGE, SMALL = 0, 1
"""Numbers of a code batch with 2,000 codes and of one with 2 codes. All code batches belong to one offer."""
Cases = Iterator[tuple[str, str, dict[str, Any]]]
_OWNER = offer_of(3)


def batch_of(number: int) -> str:
    return f"bat_{number:032x}"


def code_of(batch: int, number: int) -> str:
    return f"B{batch:04d}C{number:06d}"


def batches() -> Iterator[tuple[str, Document]]:
    """Yield the documents of code batches, whose number does not depend on the number of entries."""
    for number in range(BATCH_COUNT):
        open_, batch = number % (BATCH_COUNT // BATCHES_OPEN) == 0, batch_of(number)
        status = "running" if open_ else "done"
        yield (
            CODE_BATCHES,
            {
                "_id": batch,
                "owner": _OWNER,
                "kind": "generate",
                "wanted": 2,
                "status": status,
                "open": open_,
                "count": 1,
                "made": 0,
                "first_number": None,
            },
        )
        for each in range(CODES_EACH if number else CODES_OF_LARGE):
            yield VOUCHER_CODES, {"_id": code_of(number, each), "owner": _OWNER, "offer": _OWNER, "batch": batch}
    for number in range(CODES_OF_LARGE):
        yield POOL_CODES, {"_id": pool_id(_OWNER, number + 2), "owner": _OWNER, "code": f"POOL-{number}"}
    yield STAGED_CODES, {"_id": part_id(batch_of(0), 0), "owner": _OWNER, "codes": ["A"]}


def cases() -> Cases:
    """Yield the cases of a large and a small code batch."""
    known_and_unknown = {
        "batches.get": (batch_of(7), batch_of(10**9)),
        "offer_versions.get": (f"{_OWNER}/1", f"{_OWNER}/2"),
        "staged_codes.get": (part_id(batch_of(0), 0), part_id(batch_of(1), 0)),
    }
    for query, (known, unknown) in known_and_unknown.items():
        yield query, "found", {"id": known}
        yield query, "not found", {"id": unknown}
    for case, owner in (("500 batches", _OWNER), ("none", offer_of(4))):
        yield "batches.first", case, {"owner": owner, "limit": PAGE}
        yield "batches.next", f"{case}, deep page", {"owner": owner, "before": batch_of(250), "limit": PAGE}
    running = {"id": batch_of(0), "owner": _OWNER, "status": "running", "made": 0, "count": 1, "none": None}
    for case, more in (("unchanged", {}), ("changed concurrently", {"status": "done", "made": 1, "count": 2})):
        for query in ("batches.cancel", "batches.move", "batches.number", "batches.close", "batches.decide"):
            yield query, case, {**running, **more}
    yield "batches.open", "5 of 500", {"limit": 100}
    yield "batch.batches", "1", {"ids": [batch_of(0)]}
    large = [code_of(LARGE, number) for number in range(READ)]
    yield "voucher_codes.taken", "1,000, all found", {"ids": large}
    yield "voucher_codes.taken", "1,000, none found", {"ids": [f"{code}X" for code in large]}
    yield "voucher_codes.remove", "1,000", {"ids": large}
    for case, number in (("2,000 codes", LARGE), ("2 codes", SMALL)):
        yield "voucher_codes.page", f"{case}, first page", {"batch": batch_of(number), "after": "", "limit": READ}
        yield "voucher_codes.page", f"{case}, next page", {"batch": batch_of(number), "after": code_of(number, 1), "limit": READ}
        yield "voucher_codes.left", case, {"batch": batch_of(number), "limit": SLICE}
    span = {"first": pool_id(_OWNER, 2), "last": pool_id(_OWNER, CODES_OF_LARGE + 2), "owner": _OWNER}
    yield "pool_codes.first", "2,000 codes", {**span, "limit": READ}
    yield "pool_codes.next", "2,000 codes", {**span, "after": pool_id(_OWNER, 1001), "limit": READ}
    yield "pool_codes.remove", "2,000 codes", span
    yield "staged_codes.remove", "1 part", {"first": part_id(batch_of(0), 0), "last": part_id(batch_of(0), 9999)}
