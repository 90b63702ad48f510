"""Password hashing: argon2id on a few threads, with a bounded queue in front of them.

A hash takes about 30 ms of a core and tens of MiB. Without a pool of their own, many simultaneous log-ins would slow the requests that move
value. A caller therefore waits for a slot before it reads anything, and is refused at once when the queue is full.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.resources import files
from typing import TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError

from guerdon.errors import Overloaded, Validation
from guerdon.members.models import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN

PASSES = 2
"""Time cost of argon2."""
LANES = 1
"""Parallelism of argon2."""
SALT_BYTES = 16
HASH_BYTES = 32
VERSION = 19
AHEAD = 2
"""Number of slots beyond the number of threads, so that a thread need not wait for the reads of the next caller."""
NICENESS = 10
"""Added to the niceness of the hashing threads. The kernel limits the sum to 19."""

T = TypeVar("T")


def check_new_password(password: str, pointer: str = "/password", *, email: str | None = None) -> None:
    """Check a new password: its length, and that it is not easily guessed. There are no composition rules.

    `email` is the address of the account, which must not be the password.

    Raises:
        Validation: the password is shorter than 8 or longer than 128 characters, is common, or is the address or a part of it.
    """
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise Validation.at(pointer, f"a password must have {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters")
    _encode(password)
    if is_common(password):
        raise Validation.at(pointer, "this password is too common; choose another one")
    if email is not None and password.casefold() in {email.casefold(), *email.casefold().split("@")}:
        raise Validation.at(pointer, "the password must not be the e-mail address or a part of it; choose another one")


def is_common(password: str) -> bool:
    """Return True if the whole password is on the list of common passwords, in any case."""
    # A search through the text takes 0.1 ms and 0.2 MB; a set of the entries would permanently take 2 MB.
    return "\n" not in password and f"\n{password.casefold()}\n".encode() in _common()


@cache
def _common() -> bytes:
    return b"\n" + files("guerdon.members").joinpath("common_passwords.txt").read_bytes()


def _encode(password: str) -> bytes:
    """Return the password in UTF-8, unchanged.

    Raises:
        Validation: the password is longer than 128 characters, or is not valid Unicode.
    """
    if len(password) > PASSWORD_LENGTH_MAX:
        raise Validation.at("/password", f"a password must have at most {PASSWORD_LENGTH_MAX} characters")
    try:
        return password.encode()
    except UnicodeEncodeError:
        raise Validation.at("/password", "not valid Unicode text") from None


class PasswordHasher:
    """Hashes and verifies passwords on `threads` threads. At most `queue_max` more callers wait. Call `close` at the end."""

    def __init__(self, threads: int, queue_max: int, memory_kib: int) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=PASSES, memory_cost=memory_kib, parallelism=LANES, hash_len=HASH_BYTES, salt_len=SALT_BYTES
        )
        self._memory_kib = memory_kib
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="password", initializer=_lower_priority)
        self._slots = asyncio.Semaphore(threads + AHEAD)
        self._callers, self._callers_max = 0, threads + queue_max
        # A well-formed hash that no password matches: its digest is 32 zero bytes. A check against it takes as long as a real one.
        salt, zeros = "A" * 22, "A" * 43
        self._unmatchable = f"$argon2id$v={VERSION}$m={memory_kib},t={PASSES},p={LANES}${salt}${zeros}"

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Wait for a slot, and hold it for all work on one password, including its reads.

        Raises:
            Overloaded: too many callers are waiting.
        """
        if self._callers >= self._callers_max:
            raise Overloaded("too many log-ins at this moment; try again", retry_after_seconds=1)
        self._callers += 1
        try:
            async with self._slots:
                yield
        finally:
            self._callers -= 1

    async def hash(self, password: str) -> str:
        """Return the encoded argon2id hash of a password, with a new salt. The caller holds a `slot`.

        Raises:
            Validation: the password is too long.
        """
        raw = _encode(password)
        return await self._run(lambda: self._argon2.hash(raw))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return True if `stored` is a hash of `password`. None, for an unknown member or one without a password, takes the same time.

        The caller holds a `slot`.

        Raises:
            Validation: the password is too long.
        """
        raw = _encode(password)
        return await self._run(lambda: self._matches(stored or self._unmatchable, raw)) and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        """Return True if `stored` was made with weaker parameters than the current ones. A stronger hash is kept."""
        used = argon2.extract_parameters(stored)
        return (
            used.type is not argon2.Type.ID
            or used.version < VERSION
            or used.memory_cost < self._memory_kib
            or used.time_cost < PASSES
            or used.hash_len < HASH_BYTES
            or used.salt_len < SALT_BYTES
        )

    def close(self) -> None:
        """Wait for the running hashes (about 30 ms each) and cancel the waiting ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _matches(self, stored: str, raw: bytes) -> bool:
        try:
            return self._argon2.verify(stored, raw)
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        # A caller who disconnects cancels a hash that has not begun. A hash that has begun finishes, so at most `threads` are wasted.
        return await asyncio.wrap_future(self._pool.submit(work))


def _lower_priority() -> None:
    """Lower the priority of this thread: a hash takes a whole core, and there may be no more cores than hashing threads."""
    if sys.platform != "linux":  # Elsewhere a priority belongs to the whole process.
        return
    with suppress(OSError):  # A sandbox may forbid it; then the thread keeps its priority.
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
