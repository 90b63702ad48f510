"""Every collection says what it keeps of people, and the operations page says the same."""

from pathlib import Path

from tools.personal_data import PEOPLE, PersonalData

from guerdon.collections import ERASABLE_ROWS, INDEXES
from guerdon.privacy.models import ExportView

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_collection_declares_its_personal_data() -> None:
    assert set(PEOPLE) == set(INDEXES), "say in tools/personal_data.py what a new collection keeps of people"


def test_declared_personal_data_matches_erasure_and_export() -> None:
    kept = {name: each for name, each in PEOPLE.items() if each is not None}
    assert {each.collection for each in ERASABLE_ROWS} <= {name for name, each in kept.items() if each.fate == "deleted"}
    for name, each in kept.items():
        assert bool(each.exported) != bool(each.reason_not_exported), name
    parts = {part for each in kept.values() for part in each.exported} | {"format", "exported_at", "complete"}
    assert set(ExportView.__struct_fields__) == parts, "every part of an export shows some collection"


def row_of(name: str, kept: PersonalData) -> str:
    return f"| `{name}` | {kept.fate} | " + (
        f"{', '.join(kept.exported)} |" if kept.exported else f"no: {kept.reason_not_exported} |"
    )


def test_operations_page_has_the_personal_data_table() -> None:
    rows = [row_of(name, kept) for name, kept in PEOPLE.items() if kept is not None]
    assert "| collection | on erasure | in an export |\n|---|---|---|\n" + "\n".join(rows) + "\n\n" in PAGE
