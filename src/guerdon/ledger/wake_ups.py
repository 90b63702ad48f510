"""Wake-ups between the processes of one host: a datagram with the number of a lease that was granted to its receiver.

Each process receives on an abstract Unix socket (Linux) whose name contains its process id, so there is no port, no file and no address to
configure. A forged wake-up makes a process start a commit early, which costs the time of a lost race: leases protect nothing. Without
wake-ups (another host, another system), a process looks at the queue of leases from time to time.
"""

import asyncio
import socket

_PREFIX = "\0guerdon-lease-"
_NUMBER_BYTES = 20
"""Maximum length of a number in a datagram; the rest is cut off."""


class WakeUps:
    """The receiving socket of one process."""

    def __init__(self, process_id: str) -> None:
        self._process_id = process_id
        self._socket: socket.socket | None = None
        self._granted = 0
        """Number of the lease of the last wake-up."""
        self._arrived = asyncio.Event()

    def open(self) -> None:
        """Start to receive, where the system has abstract Unix sockets."""
        try:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:
            return
        try:
            made.bind(_PREFIX + self._process_id)
        except OSError:
            made.close()
            return
        self._socket = made
        asyncio.get_running_loop().add_reader(made.fileno(), self._receive, made)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    async def wait(self, number: int, seconds: float) -> bool:
        """Wait for the wake-up of a lease, at most `seconds`. Return True if it has arrived."""
        try:
            async with asyncio.timeout(seconds):
                while self._granted != number:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    def wake(self, process_id: str, number: int) -> None:
        """Send a process, if it is on this host, the number of its lease that was granted."""
        if self._socket is not None:
            try:
                self._socket.sendto(b"%d" % number, _PREFIX + process_id)
            except OSError:  # It is on another host, has ended, or has wake-ups that it has not received yet.
                return

    def reach(self, process_id: str) -> bool:
        """Return True if a process is on this host and can wake this one."""
        if self._socket is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(_PREFIX + process_id)
        except OSError:
            return False
        return True

    def _receive(self, receiver: socket.socket) -> None:
        try:
            while True:
                text = receiver.recv(_NUMBER_BYTES)
                if text.isdigit():
                    self._granted = int(text)
                    self._arrived.set()
        except OSError:  # There are no more.
            return
