"""Tables as Parquet, compressed with zstd. It needs the extra `guerdon[parquet]`."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from typing import Any

from guerdon.exports.tables import ColumnKind, Pages, Rows, Table, TableColumn, Value

ROW_GROUP_ROWS = 50_000
PIECES_MAX = 64
"""Maximum number of pieces of 8 KiB or more that wait for the reader of the file."""
_WAIT_SECONDS = 0.05


async def encode_parquet(table: Table) -> AsyncGenerator[bytes]:
    """Yield the pieces of a file. The library writes in a thread, and fetches each page of rows from the event loop."""
    bridge = _Bridge(table.pages, asyncio.get_running_loop())
    writing = asyncio.create_task(asyncio.to_thread(_write, table.columns, bridge))
    try:
        while not writing.done() or bridge.pieces:
            if bridge.pieces:
                yield bridge.take()
            else:
                await asyncio.wait({writing}, timeout=_WAIT_SECONDS)
        if bridge.error is not None:
            raise bridge.error
        await writing
    finally:
        bridge.close()
        with suppress(Exception):  # The error of an abandoned file has no reader.
            await writing
        await table.pages.aclose()


class _Bridge:
    """Pages of rows into the thread, and pieces of the file out of it. It is the file that the library writes to."""

    def __init__(self, pages: Pages, loop: asyncio.AbstractEventLoop) -> None:
        self._pages = pages
        self._loop = loop
        self._waiting: Future[Rows | None] | None = None
        self._taken = asyncio.Event()
        self._closed = False
        self.pieces: deque[bytes] = deque()
        self.error: BaseException | None = None

    def fetch(self) -> Rows | None:
        """Return the next page, or None after the last one. Called in the thread of the library."""
        self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        if self._closed:
            self._waiting.cancel()
        try:
            return self._waiting.result()
        except BaseException as error:
            self.error = error
            raise

    async def _next(self) -> Rows | None:
        # A slow reader of the file holds the rows back.
        while len(self.pieces) > PIECES_MAX:
            self._taken.clear()
            await self._taken.wait()
        return await anext(self._pages, None)

    def take(self) -> bytes:
        """Return what was written since the last call. The thread may write meanwhile, so pieces are taken one by one."""
        taken: list[bytes] = []
        while self.pieces:
            taken.append(self.pieces.popleft())
        self._taken.set()
        return b"".join(taken)

    def close(self) -> None:
        """End the thread: its next or present call of `fetch` fails."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()

    # --- the file -----------------------------------------------------------------------------------------------------

    def write(self, piece: bytes) -> int:
        self.pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        pass

    def read(self, size: int = -1) -> bytes:
        raise OSError("this file is only written")

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("this file is only written")


def _write(columns: Sequence[TableColumn], bridge: _Bridge) -> None:
    core: Any = import_module("arro3.core")
    types = _types(core)
    schema = core.Schema([core.Field(column.name, types[column.kind], nullable=True) for column in columns])

    def batches() -> Iterator[Any]:
        while (rows := bridge.fetch()) is not None:
            arrays = [
                _array(core, types, column.kind, list(values))
                for column, values in zip(columns, zip(*rows, strict=True), strict=True)
            ]
            yield core.RecordBatch.from_arrays(arrays, schema=schema)

    reader = core.RecordBatchReader.from_batches(schema, batches())
    write_parquet: Any = import_module("arro3.io").write_parquet
    write_parquet(reader, bridge, compression="zstd(3)", max_row_group_size=ROW_GROUP_ROWS)


def _types(core: Any) -> dict[ColumnKind, Any]:
    return {
        "text": core.DataType.utf8(),
        "integer": core.DataType.int64(),
        "number": core.DataType.float64(),
        "time": core.DataType.timestamp("ms", tz="UTC"),
        "boolean": core.DataType.bool(),
    }


def _array(core: Any, types: dict[ColumnKind, Any], kind: ColumnKind, values: list[Value]) -> Any:
    if kind == "time":
        # The library makes times only from integers.
        return core.Array(values, types["integer"]).cast(types["time"])
    return core.Array(values, types[kind])
