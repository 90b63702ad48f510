"""Events as earlier versions stored them are read, stored and hashed as before."""

import base64
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.campaigns.domain import RecordedEvent
from guerdon.database import Collection
from guerdon.proofs import digest_of

GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "events.json").read_text(encoding="utf-8"))[
    "events"
]


def stored(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the golden file as the database holds it."""
    event = copy.deepcopy(row["event"])
    return {**event, "fingerprint": base64.b64decode(event["fingerprint"])}


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["event"]["_id"])
def test_a_golden_event_is_read_stored_and_hashed_as_before(row: dict[str, Any]) -> None:
    text = json.dumps(row["event"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == row["digest"]
    document = stored(row)
    assert digest_of(document) == row["digest"]
    event = Collection[RecordedEvent](None, RecordedEvent).decode(document)  # type: ignore[arg-type]
    assert digest_of(Collection.encode(event)) == row["digest"], "it is stored as before, because the digest covers every field"


def test_segments_are_stored_only_if_there_are_any() -> None:
    without, with_segments = GOLDEN
    assert "segments" not in without["event"]["inputs"]
    assert with_segments["event"]["inputs"]["segments"] == ["champions", "home"]
    changed = stored(with_segments)
    del changed["inputs"]["segments"]
    assert digest_of(changed) != with_segments["digest"]
