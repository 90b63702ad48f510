"""The load generator: a separate process that sends prebuilt bytes over raw sockets, so that it does not limit the measurement.

It reads a `Plan` from standard input and writes a `Sample` to standard output, both as JSON. A client library would need more CPU time per
request than the server under test.
"""

import asyncio
import gc
import os
import random
import re
import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import msgspec
import uvloop
from msgspec import Struct

DRAIN_SECONDS = 30.0
"""Time for the last responses after the end of the window."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_TICKS = os.sysconf("SC_CLK_TCK")
_ESTABLISHED = "01"
TRANSFER_WALLETS = 6
"""Number of wallets among which transfers are made."""
_BULK_DONE = b'"status":201'


class Plan(Struct, frozen=True):
    """A load: the requests, the server and the duration."""

    port: int
    token: str
    wallets_file: str
    kind: Literal["debit", "transfer", "bulk", "noop", "event", "events", "read"]
    connections: int
    seconds: float
    tag: str
    """Prefix of every idempotency key, unique per plan."""
    warmup_seconds: float = 0.5
    one_wallet: bool = False
    bulk_size: int = 500
    watch: dict[str, list[int]] = {}
    """Processes whose CPU time is reported, by name."""


class Sample(Struct):
    """Result of a timed window. `done` and `errors` include the warm-up and the responses after the window."""

    latencies_us: list[int]
    units: int
    """Number of debits answered within the window."""
    seconds: float
    done: int
    """Number of acknowledged debits in total: the expected decrease of the balances."""
    errors: dict[str, int]
    cpu: dict[str, float]
    """CPU time in the window as a share of one core."""
    connections: list[int] = []
    """Number of connections accepted by each process in `watch`, without zeros."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._buffer = bytearray()
        self._wanted = 0
        self._sent_at = 0.0
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def send(self) -> None:
        """Send the next request."""
        assert self._transport is not None
        request = self._run.next_request()
        self._busy = True
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._wanted:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            length = _LENGTH.search(self._buffer, 0, head + 2)
            self._wanted = head + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) >= self._wanted:
            answer, self._buffer, self._wanted = bytes(self._buffer), bytearray(), 0
            self._busy = False
            if self._run.answered(answer, self._sent_at):
                self.send()
            elif self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.lost("connection lost" if self._busy else None)


class Run:
    """State of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._open = plan.connections
        self._window = (float("inf"), float("inf"))
        self._latencies = array("I")
        self._units = 0
        self._done = 0
        self._errors: Counter[str] = Counter()
        self._good = b"200" if plan.kind == "read" else b"201"
        self.over = asyncio.Event()
        self.next_request: Callable[[], bytes] = requests_of(plan)

    async def run(self) -> Sample:
        """Connect, warm up, measure, and wait for the last responses."""
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._plan.port)
            for _ in range(self._plan.connections)
        ]
        start = time.perf_counter() + self._plan.warmup_seconds
        self._window = (start, start + self._plan.seconds)
        for _, connection in made:
            connection.send()
        # The last connections are accepted while the first requests are in flight.
        await asyncio.sleep(self._plan.warmup_seconds / 2)
        taken = [connections_of(pid, self._plan.port) for pids in self._plan.watch.values() for pid in pids]
        await asyncio.sleep(max(start - time.perf_counter(), 0))
        before = cpu_seconds(self._plan.watch)
        await asyncio.sleep(self._plan.seconds)
        after = cpu_seconds(self._plan.watch)
        try:
            await asyncio.wait_for(self.over.wait(), DRAIN_SECONDS)
        except TimeoutError:
            self._errors["not answered"] += self._open
        cpu = {name: (after[name] - before[name]) / self._plan.seconds for name in after}
        return Sample(
            list(self._latencies), self._units, self._plan.seconds, self._done, dict(self._errors), cpu, [n for n in taken if n]
        )

    def answered(self, answer: bytes, sent_at: float) -> bool:
        """Count one response; return True if the connection continues."""
        now = time.perf_counter()
        status = answer[9:12]
        if self._plan.kind in ("bulk", "events"):
            units = answer.count(_BULK_DONE) if status == b"200" else 0
            if units != self._plan.bulk_size:
                self._errors[f"bulk {status.decode('latin-1')}: {units} of {self._plan.bulk_size}"] += 1
        else:
            units = 1 if status == self._good else 0
            if not units:
                self._errors[status.decode("latin-1")] += 1
        self._done += units
        start, end = self._window
        if start <= now < end:
            self._latencies.append(int((now - sent_at) * 1e6))
            self._units += units
        return now < end

    def lost(self, error: str | None) -> None:
        """Remove a closed connection."""
        if error is not None:
            self._errors[error] += 1
        self._open -= 1
        if not self._open:
            self.over.set()


def requests_of(plan: Plan) -> Callable[[], bytes]:
    """Return a function that returns the bytes of the next request, with a new key and a uniformly chosen wallet."""
    wallets = Path(plan.wallets_file).read_text(encoding="ascii").split()
    common = f"Host: 127.0.0.1\r\nAuthorization: Bearer {plan.token}\r\nContent-Type: application/json\r\nContent-Length: "
    draw = random.Random(plan.tag)
    count = 0
    if plan.kind == "bulk":
        heads = [f'{{"type":"debit","wallet":"{wallet}","amount":1,"key":"{plan.tag}-' for wallet in wallets]

        def next_bulk() -> bytes:
            nonlocal count
            count += 1
            chosen = draw.sample(heads, plan.bulk_size)
            body = '{"commands":[' + ",".join([f'{head}{count}-{n}"}}' for n, head in enumerate(chosen)]) + "]}"
            return f"POST /v1/bulk HTTP/1.1\r\n{common}{len(body)}\r\n\r\n{body}".encode("ascii")

        return next_bulk

    if plan.kind in ("event", "events"):
        return events_of(plan, wallets, common)
    if plan.kind == "transfer":
        return transfers_of(plan, wallets[:TRANSFER_WALLETS], common)

    if plan.kind == "read":
        return reads_of(plan, wallets)

    rest = f"{common}12\r\nIdempotency-Key: {plan.tag}-"
    paths = ["/noop"] if plan.kind == "noop" else [f"/v1/wallets/{wallet}/debit" for wallet in wallets]
    prefixes = [f"POST {path} HTTP/1.1\r\n{rest}".encode("ascii") for path in paths[: 1 if plan.one_wallet else None]]
    total, draw_one = len(prefixes), draw.random

    def next_debit() -> bytes:
        nonlocal count
        count += 1
        return b'%b%d\r\n\r\n{"amount":1}' % (prefixes[int(draw_one() * total)], count)

    return next_debit


def reads_of(plan: Plan, wallets: list[str]) -> Callable[[], bytes]:
    """Return a function that returns a read of a uniformly chosen wallet."""
    draw_one = random.Random(plan.tag).random
    common = f"HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {plan.token}\r\n\r\n"
    requests = [f"GET /v1/wallets/{wallet} {common}".encode("ascii") for wallet in wallets[: 1 if plan.one_wallet else None]]
    total = len(requests)
    return lambda: requests[int(draw_one() * total)]


def transfers_of(plan: Plan, wallets: list[str], common: str) -> Callable[[], bytes]:
    """Return a function that returns a transfer of one unit between two different wallets, chosen uniformly."""
    draw = random.Random(plan.tag)
    bodies = [f'{{"from":"{source}","to":"{target}","amount":1}}' for source in wallets for target in wallets if source != target]
    prefixes = [
        f"POST /v1/transfers HTTP/1.1\r\n{common}{len(body)}\r\nIdempotency-Key: {plan.tag}-".encode("ascii") for body in bodies
    ]
    pairs = [*zip(prefixes, [body.encode("ascii") for body in bodies], strict=True)]
    count = 0

    def next_transfer() -> bytes:
        nonlocal count
        count += 1
        prefix, body = draw.choice(pairs)
        return b"%b%d\r\n\r\n%b" % (prefix, count, body)

    return next_transfer


def events_of(plan: Plan, wallets: list[str], common: str) -> Callable[[], bytes]:
    """Return a function that returns a new purchase of three line items by a uniformly chosen owner of a wallet."""
    draw = random.Random(plan.tag)
    members = [wallet.partition(":")[0] for wallet in wallets]
    categories = ("tea", "toys", "garden", "books")
    lines = [
        ",".join(
            f'{{"sku":"S{n}{k}","quantity":{k + 1},"unit_price":{199 + 10 * n},"category":"{categories[(n + k) % 4]}"}}'
            for k in range(3)
        )
        for n in range(50)
    ]
    count = 0

    def event() -> str:
        nonlocal count
        count += 1
        return (
            f'{{"id":"{plan.tag}-{count}","type":"purchase","member":{{"id":"{draw.choice(members)}"}},"occurred_at":"2026-11-20T12:00:00Z",'
            f'"amount":{draw.randrange(500, 50_000)},"currency":"GBP","items":[{draw.choice(lines)}],"attributes":{{"channel":"web"}}}}'
        )

    def next_request() -> bytes:
        body, path = (
            (event(), "/v1/events")
            if plan.kind == "event"
            else (
                '{"events":[' + ",".join(event() for _ in range(plan.bulk_size)) + "]}",
                "/v1/events/bulk",
            )
        )
        return f"POST {path} HTTP/1.1\r\n{common}{len(body)}\r\n\r\n{body}".encode("ascii")

    return next_request


def cpu_seconds(watch: dict[str, list[int]]) -> dict[str, float]:
    """Return the CPU time of this process and of the watched ones; a process that has ended counts 0."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = {"generator": used.ru_utime + used.ru_stime}
    for name, pids in watch.items():
        seconds[name] = sum(_cpu_seconds_of(pid) for pid in pids)
    return seconds


def _cpu_seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def connections_of(pid: int, port: int) -> int:
    """Return the number of established connections of a process on the local port `port`."""
    inodes: set[str] = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == _ESTABLISHED:
            inodes.add(f"socket:[{fields[9]}]")
    try:
        return sum(_link(file) in inodes for file in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:  # It was closed meanwhile.
        return ""


def main() -> None:
    """Run the plan on standard input."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()  # There are no reference cycles, and a pause would count as latency of the server.

    async def measure() -> Sample:
        return await Run(plan).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sample = runner.run(measure())
    sys.stdout.buffer.write(msgspec.json.encode(sample))


if __name__ == "__main__":
    main()
