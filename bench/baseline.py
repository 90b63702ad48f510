"""The baseline: the same debit with one MongoDB transaction per request.

Everything except the ledger equals the product: Falcon, msgspec, Granian with uvloop, PyMongo, the same mongod, the same durability
(snapshot, majority, journaled, primary), and the same refusal of an overdraft and of a repeated key. The baseline does less: it compares
its token in memory, and writes no access log, no metrics, no hash chain and no fingerprint.
"""

import argparse
import asyncio
import hmac
import os
from typing import Annotated, Any

import msgspec
from falcon import HTTPBadRequest, HTTPConflict, HTTPNotFound, HTTPUnauthorized
from falcon.asgi import App, Request, Response
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.log import LogLevels
from msgspec import Meta, Struct
from pymongo import AsyncMongoClient, ReadPreference, ReturnDocument, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from guerdon.embedded import die_with_parent

URL, TOKEN, DATABASE = "BENCH_MONGODB_URL", "BENCH_TOKEN", "baseline"
TRANSACTIONS_MAX = 32
"""Maximum number of open transactions, chosen for the best result of the baseline.

Without a bound its transactions on one wallet conflict so often that it answers 2 to 14 requests a second instead of 40 to 60, and callers
wait for more than 30 s. On many wallets the bound makes no difference.
"""
NOOP = b'{"id":"txn_00000000000000000000000000000000","kind":"noop"}'
Key = Annotated[str, Meta(min_length=1, max_length=255)]
Amount = Annotated[int, Meta(ge=1, le=10**15)]


class Debit(Struct, forbid_unknown_fields=True):
    """Body of a debit."""

    amount: Amount


class BulkDebit(Struct, forbid_unknown_fields=True, tag_field="type", tag="debit"):
    """One debit of a bulk request."""

    wallet: str
    amount: Amount
    key: Key


class Bulk(Struct, forbid_unknown_fields=True):
    """Body of a bulk request."""

    commands: Annotated[list[BulkDebit], Meta(min_length=1, max_length=1000)]


_encode = msgspec.json.Encoder().encode
_debit = msgspec.json.Decoder(Debit)
_bulk = msgspec.json.Decoder(Bulk)


class Store:
    """Wallets and entries, with one transaction per debit."""

    def __init__(self, url: str) -> None:
        self.client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)
        database = self.client[DATABASE]
        self._wallets, self._entries = database["wallets"], database["entries"]
        self._gate = asyncio.Semaphore(TRANSACTIONS_MAX)

    async def debit(self, wallet: str, amount: int, key: str) -> dict[str, Any]:
        """Debit `amount` from `wallet`, once per key.

        Raises:
            HTTPConflict: The balance is too low.
            HTTPNotFound: The wallet does not exist.
        """

        async def work(session: AsyncClientSession) -> dict[str, Any]:
            earlier = await self._entries.find_one({"wallet": wallet, "key": key}, session=session)
            if earlier is not None:
                return earlier
            after = await self._wallets.find_one_and_update(
                {"_id": wallet, "balance": {"$gte": amount}},
                {"$inc": {"balance": -amount, "seq": 1}},
                return_document=ReturnDocument.AFTER,
                session=session,
            )
            if after is None:
                raise await self._refusal(wallet, session)
            entry = {"wallet": wallet, "key": key, "amount": -amount, "balance_after": after["balance"], "seq": after["seq"]}
            await self._entries.insert_one(entry, session=session)
            return entry

        try:
            async with self._gate, self.client.start_session() as session:
                entry = await session.with_transaction(
                    work, ReadConcern("snapshot"), WriteConcern("majority", j=True), ReadPreference.PRIMARY
                )
        except DuplicateKeyError:  # Another request with the same key was faster.
            entry = await self._entries.find_one({"wallet": wallet, "key": key}) or {}
        return {
            "id": str(entry["_id"]),
            "wallet": wallet,
            "amount": amount,
            "balance": int(entry["balance_after"]),  # BSON's Int64 is not a JSON number
            "seq": int(entry["seq"]),
        }

    async def _refusal(self, wallet: str, session: AsyncClientSession) -> Exception:
        if await self._wallets.find_one({"_id": wallet}, {"_id": 1}, session=session) is None:
            return HTTPNotFound()
        return HTTPConflict(title="insufficient funds")


class DebitResource:
    """`POST /v1/wallets/{wallet}/debit`"""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_post(self, req: Request, resp: Response, wallet: str) -> None:
        body = _read(_debit, await req.stream.read())
        key = req.get_header("Idempotency-Key")
        if not key:
            raise HTTPBadRequest(title="Idempotency-Key is missing")
        _send(resp, 201, await self._store.debit(wallet, body.amount, key))


class BulkResource:
    """`POST /v1/bulk`"""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_post(self, req: Request, resp: Response) -> None:
        body = _read(_bulk, await req.stream.read())

        async def one(item: BulkDebit) -> dict[str, Any]:
            return {"status": 201, "transaction": await self._store.debit(item.wallet, item.amount, item.key)}

        _send(resp, 200, {"results": await asyncio.gather(*map(one, body.commands))})


class NoopResource:
    """`POST /noop`: reads the body and responds; the upper bound of the framework and the load generator."""

    async def on_post(self, req: Request, resp: Response) -> None:
        await req.stream.read()
        resp.status, resp.content_type, resp.data = 201, "application/json", NOOP


class Guard:
    """Bearer token check, and the database client of the worker's loop."""

    def __init__(self, token: str, store: Store) -> None:
        self._wanted = f"Bearer {token}".encode()
        self._store = store

    async def process_request(self, req: Request, resp: Response) -> None:
        if not hmac.compare_digest((req.get_header("Authorization") or "").encode(), self._wanted):
            raise HTTPUnauthorized

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        await self._store.client.close()


def create_app() -> App[Any, Any]:
    """Return the ASGI application of the worker process."""
    die_with_parent()
    store = Store(os.environ[URL])
    app: App[Any, Any] = App(middleware=[Guard(os.environ[TOKEN], store)])
    app.add_route("/v1/wallets/{wallet}/debit", DebitResource(store))
    app.add_route("/v1/bulk", BulkResource(store))
    app.add_route("/noop", NoopResource())
    return app


def _read(decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise HTTPBadRequest(title=str(error)) from None


def _send(resp: Response, status: int, answer: object) -> None:
    resp.status, resp.content_type, resp.data = status, "application/json", _encode(answer)


def main() -> None:
    """Serve with the server settings of the product."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    Granian(
        "bench.baseline:create_app",
        address="127.0.0.1",
        port=parser.parse_args().port,
        interface=Interfaces.ASGI,
        workers=1,
        factory=True,
        loop=Loops.uvloop,
        backlog=4096,
        backpressure=16_384,
        websockets=False,
        log_level=LogLevels.warning,
    ).serve()


if __name__ == "__main__":
    main()
