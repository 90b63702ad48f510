"""Cutting members off from each other: by TCP proxies, which need no rights, or by network namespaces, which need root."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from guerdon.embedded.host import choose_port

MEMBERS = 3
Kind = Literal["refuse", "silence"]
"""What a cut connection meets: it is closed at once, or it stays open and nothing comes through until the cut is healed."""


class Network(Protocol):
    """Where members run and how they reach each other. Members are numbered from 0."""

    def side(self, member: int | None) -> tuple[list[str], str]:
        """What a command line begins with that shall run on a member's side of a cut, or on no member's; and where to bind to there."""
        ...

    def listens_on(self, member: int) -> tuple[str, int]:
        """The address that its mongod binds to."""
        ...

    def known_as(self, member: int) -> str:
        """The host:port that the replica set's configuration names: a cut severs it."""
        ...

    def reached_by(self, member: int) -> str:
        """The host:port at which the test itself reaches it, cut or not."""
        ...

    async def open(self) -> None: ...

    async def cut(self, member: int | None, inside: Callable[[], set[int]], kind: Kind) -> None:
        """Sever the member, if one is named, and the processes `inside` (by pid) with it from everybody else, in both directions."""
        ...

    async def heal(self) -> None: ...

    async def close(self) -> None: ...


class Door:
    """A TCP proxy in front of one member."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._kind: Kind = "refuse"
        self._severs: Callable[[set[int]], set[int]] | None = None
        self._server: asyncio.Server | None = None
        self._visits: dict[Visit, asyncio.Task[None]] = {}

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        self._visits[visit] = asyncio.ensure_future(self._host(visit))

    async def _host(self, visit: "Visit") -> None:
        try:
            self._judge([visit])
            await visit.run(self._target)
        except OSError:
            pass  # The member is down.
        finally:
            visit.abort()
            del self._visits[visit]

    def _judge(self, visits: "list[Visit]") -> None:
        if self._severs is None:
            return
        severed = self._severs({visit.source_port for visit in visits})
        for visit in visits:
            if visit.source_port in severed:
                visit.sever(self._kind)

    def cut(self, severs: Callable[[set[int]], set[int]], kind: Kind) -> None:
        """Sever those visits whose source ports `severs` returns, and later ones too."""
        self._severs, self._kind = severs, kind
        self._judge(list(self._visits))

    def heal(self) -> None:
        self._severs = None
        for visit in self._visits:
            visit.flows.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        tasks = list(self._visits.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Visit:
    """One connection through a door. While it does not flow, its bytes are kept, as TCP keeps and repeats what gets no reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.source_port: int = writer.get_extra_info("peername")[1]
        self.flows = asyncio.Event()
        self.flows.set()
        self._reader, self._writer = reader, writer
        self._writers = [writer]

    async def run(self, target: int) -> None:
        await self.flows.wait()
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
        self._writers.append(up_writer)
        there = asyncio.ensure_future(self._carry(self._reader, up_writer))
        back = asyncio.ensure_future(self._carry(up_reader, self._writer))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in (there, back):
                pipe.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            await self.flows.wait()
            writer.write(part)
            await writer.drain()
        await self.flows.wait()  # A cut line does not tell that the other side has hung up either.

    def sever(self, kind: Kind) -> None:
        if kind == "silence":
            self.flows.clear()
        else:
            self.abort()

    def abort(self) -> None:
        self.flows.set()
        for writer in self._writers:
            writer.transport.abort()


class Doors:
    """Every member behind a proxy of its own. Who dials is told by whose socket it is, so that both directions can be cut."""

    def __init__(self) -> None:
        self._ports = [choose_port(None) for _ in range(MEMBERS)]
        self._doors = [Door(choose_port(None), port) for port in self._ports]

    def side(self, member: int | None) -> tuple[list[str], str]:
        return [], "127.0.0.1"

    def listens_on(self, member: int) -> tuple[str, int]:
        return "127.0.0.1", self._ports[member]

    def known_as(self, member: int) -> str:
        return f"127.0.0.1:{self._doors[member].port}"

    def reached_by(self, member: int) -> str:
        return f"127.0.0.1:{self._ports[member]}"

    async def open(self) -> None:
        for door in self._doors:
            await door.open()

    async def cut(self, member: int | None, inside: Callable[[], set[int]], kind: Kind) -> None:
        for number, door in enumerate(self._doors):
            door.cut(_foreign(door.port, inside, welcome_inside=number == member), kind)

    async def heal(self) -> None:
        for door in self._doors:
            door.heal()

    async def close(self) -> None:
        for door in self._doors:
            await door.close()


def _foreign(door_port: int, inside: Callable[[], set[int]], *, welcome_inside: bool) -> Callable[[set[int]], set[int]]:
    """Which of the source ports belong to the other side of the cut."""

    def severs(source_ports: set[int]) -> set[int]:
        mine = set[str]().union(*map(_sockets, inside()))
        insiders = {port for port, inode in _dialling(door_port).items() if inode in mine}
        return source_ports - insiders if welcome_inside else source_ports & insiders

    return severs


def _dialling(door_port: int) -> dict[int, str]:
    """Source port and socket of all who dial a door."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return {int(line[1][-4:], 16): line[9] for line in lines if line[2].endswith(f":{door_port:04X}")}


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found: set[str] = set()
    with suppress(OSError):  # The process has ended.
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # The file was closed since.
                found.add(entry.readlink().name.removeprefix("socket:[").removesuffix("]"))
    return found


def missing_rights() -> str | None:
    """Why network namespaces cannot be had here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (iproute2)"
    name = f"guerdon-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    _delete_namespace(name)
    return None if made.returncode == 0 else f"network namespaces cannot be made here: {made.stderr.strip()}"


class Namespaces:
    """Every member in a network namespace of its own, joined by a bridge in a fourth, the hub.

    A second link leads from each to the test and is never cut. It ends in no bridge, so nobody but the test can use it.
    """

    PORT = 27017
    HUB = MEMBERS

    def __init__(self) -> None:
        self._cut: int | None = None

    def _name(self, number: int) -> str:
        return f"guerdon-{os.getpid()}-{number}"

    def side(self, member: int | None) -> tuple[list[str], str]:
        number = self.HUB if member is None else member
        return ["ip", "netns", "exec", self._name(number)], self.address(number)

    def listens_on(self, member: int) -> tuple[str, int]:
        return f"127.0.0.1,{self._data_address(member)},{self.address(member)}", self.PORT

    def known_as(self, member: int) -> str:
        return f"{self._data_address(member)}:{self.PORT}"

    def reached_by(self, member: int) -> str:
        return f"{self.address(member)}:{self.PORT}"

    def address(self, number: int) -> str:
        """At which the test reaches the namespace. 198.18.0.0/15 is set aside for tests of networks."""
        return f"198.18.{number}.2"

    def _data_address(self, number: int) -> str:
        return f"198.19.0.{number + 1}"

    async def open(self) -> None:
        _delete_orphans()
        for number in range(MEMBERS + 1):
            name, link = self._name(number), f"gd{os.getpid()}c{number}"
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("link", "add", link, "type", "veth", "peer", "name", "control", "netns", name)
            _ip("address", "add", f"198.18.{number}.1/30", "dev", link)
            _ip("link", "set", link, "up")
            _ip("-n", name, "address", "add", f"{self.address(number)}/30", "dev", "control")
            _ip("-n", name, "link", "set", "control", "up")
        hub = self._name(self.HUB)
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "address", "add", f"{self._data_address(self.HUB)}/24", "dev", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        for number in range(MEMBERS):
            name, plug = self._name(number), f"plug{number}"
            _ip("-n", hub, "link", "add", plug, "type", "veth", "peer", "name", "data", "netns", name)
            _ip("-n", hub, "link", "set", plug, "master", "bridge", "up")
            _ip("-n", name, "address", "add", f"{self._data_address(number)}/24", "dev", "data")
            _ip("-n", name, "link", "set", "data", "up")

    async def cut(self, member: int | None, inside: Callable[[], set[int]], kind: Kind) -> None:
        assert member is not None, "nobody can be cut off from his own namespace"
        assert kind == "silence", "a link that is down refuses nothing"
        self._cut = member
        _ip("-n", self._name(self.HUB), "link", "set", f"plug{member}", "down")

    async def heal(self) -> None:
        if self._cut is not None:
            _ip("-n", self._name(self.HUB), "link", "set", f"plug{self._cut}", "up")
            self._cut = None

    async def close(self) -> None:
        """Deleting a namespace deletes its links, and their other ends with them."""
        for number in range(MEMBERS + 1):
            _delete_namespace(self._name(number))


def _delete_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _delete_orphans() -> None:
    """What a test process left that was killed itself would stand in the way: the addresses are the same for all."""
    for entry in Path("/run/netns").glob("guerdon-*-*"):
        if not Path("/proc", entry.name.split("-")[1]).exists():
            _delete_namespace(entry.name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
