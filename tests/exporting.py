"""Asks for exports and does a worker's work, for tests."""

import csv
import hashlib
import io
from typing import Any

import httpx

from guerdon.wiring.services import Services
from tests.clients import Caller

LARGE = 9_876_543_210


class Exports:
    """Asks for exports, and does a worker's work."""

    def __init__(self, service: Caller, services: Services) -> None:
        self.service = service
        self.services = services

    async def create(self, **body: Any) -> dict[str, Any]:
        answer = await self.service.post("/v1/exports", body)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/exports/{answer.json()['id']}"
        return dict(answer.json())

    async def read(self, export_id: str) -> dict[str, Any]:
        answer = await self.service.get(f"/v1/exports/{export_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def done(self, **body: Any) -> dict[str, Any]:
        """An export that a worker has written."""
        created = await self.create(**body)
        assert (created["status"], created["rows"], created["sha256"], created["expires_at"]) == ("waiting", 0, None, None)
        await self.services.exporter.work(1)
        export = await self.read(created["id"])
        assert (export["status"], export["error"]) == ("done", None), export
        return export

    async def file(self, export: dict[str, Any], **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"/v1/exports/{export['id']}/file"
        return await self.service.client.get(url, headers={"authorization": f"Bearer {self.service.token}", **named})

    async def content(self, export: dict[str, Any]) -> bytes:
        """The file, whose size and digest are what the export says."""
        answer = await self.file(export)
        assert answer.status_code == 200, answer.text
        assert (len(answer.content), hashlib.sha256(answer.content).hexdigest()) == (export["bytes"], export["sha256"])
        return answer.content

    async def rows(self, **body: Any) -> list[dict[str, str]]:
        """The rows of a CSV."""
        export = await self.done(format="csv", **body)
        rows = list(csv.DictReader(io.StringIO((await self.content(export)).decode(), newline="")))
        assert len(rows) == export["rows"]
        return rows
