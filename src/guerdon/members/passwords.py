"""Password hashing: argon2id on a few threads, with a bounded queue in front of them.

A hash costs about 30 ms of a core and tens of MiB. Without a pool of its own, a flood of log-ins would take the machine away from the
requests that move value. Nor may what surrounds a hash: who has no turn yet waits in a line that costs nothing, and who finds the line full
is sent away before anything is done.
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
LANES = 1
SALT_BYTES = 16
HASH_BYTES = 32
VERSION = 19
AHEAD = 2
"""So many callers with a turn more than threads, so that these need not wait for what is read."""
NICENESS = 10
"""So far behind the process's other threads. The kernel holds the sum to 19."""

T = TypeVar("T")


def check_new_password(password: str, pointer: str = "/password", *, email: str | None = None) -> None:
    """Apply the rule for a password that somebody chooses: a length, and not what is guessed first; no composition.

    `email` is the address that belongs to it, since that is guessed too.

    Raises:
        Validation: shorter than 8 or longer than 128 characters, a common one, or the address or a part of it.
    """
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise Validation.at(pointer, f"a password has {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters")
    _encode(password)
    if is_common(password):
        raise Validation.at(pointer, "this password is on the list of those that are guessed first; choose another one")
    if email is not None and password.casefold() in {email.casefold(), *email.casefold().split("@")}:
        raise Validation.at(pointer, "the e-mail address, or a part of it, is no password; choose another one")


def is_common(password: str) -> bool:
    """Tell whether the list has it, in upper or lower case: all of it, not a part of it."""
    # A search through the text takes 0.1 ms and 0.2 MB; a set of the entries would take 2 MB for as long as the process lives.
    return "\n" not in password and f"\n{password.casefold()}\n".encode() in _common()


@cache
def _common() -> bytes:
    return b"\n" + files("guerdon.members").joinpath("common_passwords.txt").read_bytes()


def _encode(password: str) -> bytes:
    """Return the bytes to hash: exactly what was typed, in UTF-8.

    Raises:
        Validation: too long to be hashed at all, or not text.
    """
    if len(password) > PASSWORD_LENGTH_MAX:
        raise Validation.at("/password", f"a password has at most {PASSWORD_LENGTH_MAX} characters")
    try:
        return password.encode()
    except UnicodeEncodeError:
        raise Validation.at("/password", "not valid Unicode text") from None


class PasswordHasher:
    """Hashes and verifies passwords on `threads` threads; at most `queue_max` more callers wait. Close it at the end."""

    def __init__(self, threads: int, queue_max: int, memory_kib: int) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=PASSES, memory_cost=memory_kib, parallelism=LANES, hash_len=HASH_BYTES, salt_len=SALT_BYTES
        )
        self._memory_kib = memory_kib
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="password", initializer=_give_way)
        self._turns = asyncio.Semaphore(threads + AHEAD)
        self._callers, self._callers_max = 0, threads + queue_max
        # A well-formed hash of no password: to check against it costs what a real check costs, and 32 zero bytes never match.
        salt, nothing = "A" * 22, "A" * 43
        self._nobody = f"$argon2id$v={VERSION}$m={memory_kib},t={PASSES},p={LANES}${salt}${nothing}"

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, and keep it for all that belongs to one password: what is read for it too.

        Raises:
            Overloaded: too many callers are waiting.
        """
        if self._callers >= self._callers_max:
            raise Overloaded("too many people are logging in at this moment", retry_after_seconds=1)
        self._callers += 1
        try:
            async with self._turns:
                yield
        finally:
            self._callers -= 1

    async def hash(self, password: str) -> str:
        """Return the encoded argon2id hash, with a salt of its own. For whoever has a turn.

        Raises:
            Validation: the password is too long.
        """
        raw = _encode(password)
        return await self._run(lambda: self._argon2.hash(raw))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether `password` made `stored`. None, for somebody unknown or without a password, takes the same work.

        For whoever has a turn.

        Raises:
            Validation: the password is too long.
        """
        raw = _encode(password)
        return await self._run(lambda: self._matches(stored or self._nobody, raw)) and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        """Tell whether `stored` was made with weaker parameters than today's. A stronger one stays as it is."""
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
        """Let the running hashes end (some 30 ms each) and drop the waiting ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _matches(self, stored: str, raw: bytes) -> bool:
        try:
            return self._argon2.verify(stored, raw)
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        # One who hangs up takes back a hash that has not begun; one that has begun goes on, so at most `threads` are nobody's.
        return await asyncio.wrap_future(self._pool.submit(work))


def _give_way() -> None:
    """Run this thread behind the others: a hash takes a whole core, and there may be no more cores than threads that hash."""
    if sys.platform != "linux":  # Elsewhere a priority belongs to the whole process.
        return
    with suppress(OSError):  # A sandbox may forbid it; then they run beside the others.
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
