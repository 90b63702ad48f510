"""Writes docs/openapi.json, the committed copy that reviews and other programs read: `make docs`."""

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from guerdon.app import Services, routes_of
from guerdon.identity.token_keys import TokenKeys
from guerdon.operations.controller import DocsResource
from guerdon.operations.metrics import Metrics
from guerdon.operations.openapi import document_of

PATH = Path(__file__).parents[2] / "docs" / "openapi.json"


def render(document: dict[str, Any]) -> str:
    """Return the committed form: sorted and indented, so that a change shows as a readable diff."""
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def current() -> str:
    """Return what the code says now. The document is made from declarations, so the services behind the routes may be absent."""
    absent = dict.fromkeys(field.name for field in fields(Services))
    services = SimpleNamespace(**{**absent, "token_keys": TokenKeys(TokenKeys.generate())})
    return render(json.loads(document_of(routes_of(cast(Services, services), DocsResource(), Metrics()))))


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
