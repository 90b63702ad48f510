"""Writes docs/openapi.json, the committed copy that reviews and other programs read: `make docs`."""

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from guerdon.access.token_keys import TokenKeys
from guerdon.system.controller import DocsResource
from guerdon.system.metrics import Metrics
from guerdon.system.openapi import Routes, document_of
from guerdon.wiring.routes import routes_of
from guerdon.wiring.services import Services

PATH = Path(__file__).parents[2] / "docs" / "openapi.json"


def render(document: dict[str, Any]) -> str:
    """Return the committed form: sorted and indented, so that a change shows as a readable diff."""
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def declared_routes() -> Routes:
    """Every route as the composition root makes it. What it declares stands on its class, so the services behind it may be absent."""
    absent = dict.fromkeys(field.name for field in fields(Services))
    services = SimpleNamespace(**{**absent, "token_keys": TokenKeys(TokenKeys.generate()), "clock_control": absent})
    return routes_of(cast(Services, services), DocsResource(), Metrics())


def current() -> str:
    """Return what the code says now."""
    return render(json.loads(document_of(declared_routes())))


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
