"""A wallet's changes as server-sent events: each entry once, in order, whatever happens to the client, the feed or the primary."""

from typing import Any

from falcon.asgi import App

from tests.clients import Caller
from tests.factories import Factory
from tests.streaming import follow


async def test_a_stream_begins_with_the_wallet_and_goes_on_with_its_entries(
    app: App[Any, Any], service: Caller, factory: Factory
) -> None:
    wallet = await factory.wallet(100)
    async with follow(app, f"/v1/wallets/{wallet}/stream", service.token) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        first = await stream.next()
        assert first is not None
        assert (first.name, first.id) == ("balance", "1")
        assert first.data == {"balance": 100, "held": 0, "available": 100, "seq": 1, "status": "open", "reset": False}
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 30, "reference": "order-1"})
        event = await stream.next()
        assert event is not None
        [newest] = (await service.get(f"/v1/wallets/{wallet}/entries", limit=1)).json()["items"]
        assert (event.name, event.id) == ("entry", "2")
        assert event.data == {"balance": 70, "held": 0, "available": 70, "seq": 2, "entry": newest}
    await factory.assert_books_balance()
