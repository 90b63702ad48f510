"""Files of exports in the database: sealed chunks, written by one worker at a time and read by any process.

Each chunk is written in one transaction with the progress of the export, on condition that the export still belongs to the start that writes
it. A worker that has lost its lease therefore writes nothing, and a file is complete or absent. Each file has a key of its own: when the key
is deleted the file cannot be read, in a backup either.

Chunks of a compressed format are pieces of one deflate stream (RFC 1951). Each begins without a dictionary, so that it can be read alone, and
together they are the body of a gzip file (RFC 1952).
"""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncGenerator

from guerdon.crypto.sealing import SealingKey
from guerdon.database import Collection, Database, Document
from guerdon.errors import Internal
from guerdon.exports.formats import FORMATS
from guerdon.exports.models import EXPORT_CHUNKS, EXPORT_JOBS, FREE, ExportChunk, ExportJob, chunk_id, key_context
from guerdon.members.vault import Vault

CHUNK_BYTES = 1 << 20
"""Bytes of the file in every chunk but the last."""
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"
_RAW_DEFLATE = -15


class Superseded(Exception):
    """The export was started again, deleted or withdrawn. Nothing was written."""


class NoRoom(Exception):
    """The files of all exports take the permitted space."""


class FileStore:
    """The files of all exports."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._jobs: Collection[ExportJob] = database.collection(EXPORT_JOBS, ExportJob)
        self._chunks = database.collection(EXPORT_CHUNKS, ExportChunk)
        self._vault = vault

    @property
    def can_seal(self) -> bool:
        """True if this process has the master keys, without which files are neither written nor read."""
        return self._vault.has_master

    def new_key(self, export_id: str) -> bytes:
        """Return a new key of a file, sealed by the master key."""
        return self._vault.master.seal(SealingKey.generate(), key_context(export_id))

    def writer(self, job: ExportJob, room_bytes: int) -> "FileWriter":
        """Return the writer of the file of an export that has just been started. It may store `room_bytes`."""
        return FileWriter(self._database, job, self._key_of(job), room_bytes)

    async def used_bytes(self) -> int:
        """Return the stored bytes of all files: those that have a time of removal, and those that are being written."""
        return await self._sum_stored({"due_at": {"$gte": 0}}) + await self._sum_stored({"lane": {"$gt": FREE}})

    async def _sum_stored(self, where: Document) -> int:
        total: list[Document] = [{"$match": where}, {"$group": {"_id": None, "stored": {"$sum": "$stored"}}}]
        rows = await (await self._jobs.raw.aggregate(total)).to_list()
        return int(rows[0]["stored"]) if rows else 0

    async def read(self, job: ExportJob, first: int, last: int) -> AsyncGenerator[bytes]:
        """Yield the bytes `first` to `last` of a file, both included.

        Raises:
            Internal: a chunk is missing, because the file was removed meanwhile.
        """
        key, compressed = self._key_of(job), FORMATS[job.format].compresses
        for number in range(first // CHUNK_BYTES, last // CHUNK_BYTES + 1 if last >= first else 0):
            data = await self._open(job, key, number)
            if compressed:
                data = await asyncio.to_thread(zlib.decompressobj(_RAW_DEFLATE).decompress, data)
            start = number * CHUNK_BYTES
            yield data[max(first - start, 0) : last - start + 1]

    async def read_gzip(self, job: ExportJob) -> AsyncGenerator[bytes]:
        """Yield a compressed file as a gzip file.

        Raises:
            Internal: as for `read`.
        """
        key = self._key_of(job)
        yield _GZIP_HEADER
        for number in range(job.chunks):
            yield await self._open(job, key, number)
        yield _gzip_end(job.crc32, job.size_bytes)

    async def remove(self, export_id: str) -> None:
        """Delete all chunks of an export."""
        await self._chunks.raw.delete_many({"_id": {"$gte": f"{export_id}/", "$lt": f"{export_id}0"}})

    async def remove_before(self, job: ExportJob) -> None:
        """Delete the chunks of earlier starts of an export."""
        await self._chunks.raw.delete_many({"_id": {"$gte": f"{job.id}/", "$lt": chunk_id(job.id, job.epoch, 0)}})

    def _key_of(self, job: ExportJob) -> SealingKey:
        assert job.wrapped is not None
        return SealingKey(self._vault.master.open(job.wrapped, key_context(job.id)))

    async def _open(self, job: ExportJob, key: SealingKey, number: int) -> bytes:
        chunk = await self._chunks.get(chunk_id(job.id, job.epoch, number))
        if chunk is None:
            raise Internal("a chunk of the file is missing: the file was removed while it was read")
        return await asyncio.to_thread(key.open, chunk.data, chunk.id)


class FileWriter:
    """Writer of one file. It holds one chunk in memory."""

    def __init__(self, database: Database, job: ExportJob, key: SealingKey, room_bytes: int) -> None:
        self._database = database
        self._jobs = database.raw[EXPORT_JOBS]
        self._chunks: Collection[ExportChunk] = database.collection(EXPORT_CHUNKS, ExportChunk)
        self._job = job
        self._key = key
        self._room_bytes = room_bytes
        self._compresses = FORMATS[job.format].compresses
        self._buffer = bytearray()
        self._written = self._stored = self._number = self._crc32 = 0
        self._sha256, self._gzip_sha256 = hashlib.sha256(), hashlib.sha256(_GZIP_HEADER)
        self.rows = 0
        """Number of rows that the pieces contain. The caller counts them."""

    @property
    def current(self) -> Document:
        """Filter of the export, which matches while it belongs to this start."""
        return {"_id": self._job.id, "epoch": self._job.epoch, "status": "running"}

    async def write(self, piece: bytes) -> None:
        """Append a piece of the file.

        Raises:
            Superseded: the export does not belong to this start any more.
            NoRoom: the permitted space is used.
        """
        self._buffer += piece
        while len(self._buffer) >= CHUNK_BYTES:
            await self._flush(bytes(self._buffer[:CHUNK_BYTES]))
            del self._buffer[:CHUNK_BYTES]

    async def finish(self) -> Document:
        """Write the last chunk, and return the fields of the export that describe the file.

        Raises:
            Superseded, NoRoom: as for `write`.
        """
        if self._buffer:
            await self._flush(bytes(self._buffer))
            self._buffer.clear()
        self._gzip_sha256.update(_gzip_end(self._crc32, self._written))
        return {
            "rows": self.rows,
            "bytes": self._written,
            "crc32": self._crc32,
            "sha256": self._sha256.digest(),
            "gzip_sha256": self._gzip_sha256.digest() if self._compresses else None,
        }

    async def _flush(self, raw: bytes) -> None:
        name = chunk_id(self._job.id, self._job.epoch, self._number)
        data = await asyncio.to_thread(self._packed, raw, name)
        self._number += 1
        self._written += len(raw)
        self._stored += len(data)
        if self._stored > self._room_bytes:
            raise NoRoom
        progress = {"rows": self.rows, "bytes": self._written, "stored": self._stored, "chunks": self._number}
        async with self._database.transaction() as session:
            changed = await self._jobs.update_one(self.current, {"$set": progress}, session=session)
            if not changed.matched_count:
                raise Superseded
            await self._chunks.insert(ExportChunk(id=name, data=data), session)

    def _packed(self, raw: bytes, name: str) -> bytes:
        self._sha256.update(raw)
        if self._compresses:
            self._crc32 = zlib.crc32(raw, self._crc32)
            deflating = zlib.compressobj(wbits=_RAW_DEFLATE)
            raw = deflating.compress(raw) + deflating.flush(zlib.Z_SYNC_FLUSH)
            self._gzip_sha256.update(raw)
        return self._key.seal(raw, name)


def _gzip_end(crc32: int, size: int) -> bytes:
    return _LAST_BLOCK + crc32.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
