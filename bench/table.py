"""Evaluation of the samples: rates, percentiles, targets, and the Markdown table."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from bench.load import Sample

GENERATOR_BUSY = 0.9
"""Share of a core above which the generator, not the server, may limit the rate."""


class Scenario(Struct, frozen=True):
    """One row of the table. `target` is in debits per second, or in milliseconds for the row with one caller."""

    row: int
    what: str
    connections: int
    kind: Literal["debit", "transfer", "bulk", "noop"] = "debit"
    one_wallet: bool = False
    target: float | None = None
    target_ratio: float | None = None
    four: bool = False
    """True to compare four processes with one of the product, instead of the product with the baseline."""


SCENARIOS = (
    Scenario(1, "single debits, {wallets} wallets", 64, target=2800, target_ratio=6),
    Scenario(1, "single debits, {wallets} wallets", 256, target=4500, target_ratio=6),
    Scenario(2, "single debits, one wallet", 64, one_wallet=True),
    Scenario(2, "single debits, one wallet", 256, one_wallet=True),
    Scenario(3, "`POST /v1/bulk`, 500 debits a request, {wallets} wallets", 4, kind="bulk", target=12_000),
    Scenario(4, "one caller, nothing else running", 1, target=6),
    Scenario(5, "single debits, four processes, {wallets} wallets", 64, four=True),
    Scenario(5, "single debits, four processes, one wallet", 64, one_wallet=True, four=True, target_ratio=0.7),
    Scenario(5, "single debits, four processes, one wallet", 256, one_wallet=True, four=True, target_ratio=0.5),
    Scenario(6, "transfers among 6 wallets, four processes", 64, kind="transfer", four=True, target_ratio=0.5),
)
CEILINGS = (Scenario(0, "no-op route", 64, kind="noop"), Scenario(0, "no-op route", 256, kind="noop"))


class Summary(Struct, frozen=True):
    """One server in one scenario."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]
    cpu: dict[str, float]
    connections: list[list[int]]
    """Number of connections by process, for each sample."""


class Target(Struct, frozen=True):
    """A target of the design, and its result in this run."""

    text: str
    reached: bool


class Line(Struct, frozen=True):
    """One finished row of the table. `product` is compared with `other`, which the ceilings do not have."""

    scenario: Scenario
    product: Summary
    other: Summary | None
    ratio: float | None
    targets: list[Target]


def summarise(samples: Sequence[Sample]) -> Summary:
    """Combine the parts of a measurement."""
    latencies = sorted(latency for sample in samples for latency in sample.latencies_us)
    seconds = sum(sample.seconds for sample in samples)
    errors: Counter[str] = Counter()
    for sample in samples:
        errors.update(sample.errors)
    names = samples[0].cpu
    cpu = {name: sum(sample.cpu[name] * sample.seconds for sample in samples) / seconds for name in names}
    rate = sum(sample.units for sample in samples) / seconds
    return Summary(
        rate,
        percentile(latencies, 0.50),
        percentile(latencies, 0.99),
        dict(errors),
        cpu,
        [sample.connections for sample in samples],
    )


def percentile(sorted_us: Sequence[int], share: float) -> float:
    """Return a percentile in milliseconds by nearest rank; 0 without samples."""
    return sorted_us[max(math.ceil(share * len(sorted_us)) - 1, 0)] / 1000 if sorted_us else 0.0


def judge(scenario: Scenario, product: Summary, other: Summary, before: Sequence[Line]) -> Line:
    """Compare one scenario with the other server and its targets. `before` has the spread rows that the hot ones are compared with."""
    targets: list[Target] = []
    if scenario.row == 4:
        ratio = other.p50_ms / product.p50_ms if product.p50_ms else 0.0
        targets.append(Target(f"p50 ≤ {scenario.target:g} ms", product.p50_ms <= (scenario.target or 0)))
    else:
        ratio = product.rate / other.rate if other.rate else math.inf
        if scenario.target is not None:
            targets.append(Target(f"≥ {scenario.target:,.0f}/s", product.rate >= scenario.target))
        if scenario.target_ratio is not None:
            targets.append(Target(f"≥ {scenario.target_ratio:g}x", ratio >= scenario.target_ratio))
        if scenario.row == 2:
            targets.extend(
                Target(f"≥ {line.product.rate:,.0f}/s (spread)", product.rate >= line.product.rate)
                for line in before
                if line.scenario.row == 1 and line.scenario.connections == scenario.connections
            )
    return Line(scenario, product, other, ratio, targets)


def render(lines: Sequence[Line], wallets: int) -> str:
    """Return the Markdown table."""
    names = ["", "what", "conn.", "debits/s", "p50 ms", "p99 ms", "errors", "other/s", "its p50", "its p99", "ratio", "target"]
    head = "| " + " | ".join([*names, "CPU: generator, API, mongod"]) + " |"
    out = [head, "|---|---|" + "--:|" * 9 + "---|---|"]
    for line in lines:
        scenario, product, other = line.scenario, line.product, line.other
        what = scenario.what.format(wallets=f"{wallets:,}")
        cells = [
            str(scenario.row or ""),
            what,
            str(scenario.connections),
            *(f"{product.rate:,.0f}", _ms(product.p50_ms), _ms(product.p99_ms), str(sum(product.errors.values()))),
            *(("", "", "") if other is None else (f"{other.rate:,.0f}", _ms(other.p50_ms), _ms(other.p99_ms))),
            _ratio(line),
            ", ".join(f"{target.text}: {'reached' if target.reached else '**missed**'}" for target in line.targets),
            ", ".join(f"{share:.0%}" for share in product.cpu.values()),
        ]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def _ratio(line: Line) -> str:
    return "" if line.ratio is None else f"{line.ratio:.2f}x" if line.scenario.four else f"{line.ratio:.1f}x"


def _ms(value: float) -> str:
    return f"{value:,.1f}"


def say_generator(lines: Sequence[Line]) -> str:
    """Return a sentence on the CPU share of the generator and its rate against a route that does nothing."""
    ceilings = {line.scenario.connections: line.product.rate for line in lines if line.scenario.kind == "noop"}
    measured = [line for line in lines if line.scenario.kind != "noop"]
    busiest = max(measured, key=lambda line: line.product.cpu["generator"])
    share = busiest.product.cpu["generator"]
    verdict = "may have been the bottleneck" if share > GENERATOR_BUSY else "was not the bottleneck"
    parts = [f"The load generator {verdict}: at most {share:.0%} of one core (row {busiest.scenario.row}, "]
    parts.append(f"{busiest.scenario.connections} connections)")
    if ceilings:
        tops = " and ".join(f"{rate:,.0f}/s at {connections}" for connections, rate in ceilings.items())
        parts.append(f"; against the no-op route of the baseline server it does {tops} connections")
    return "".join(parts) + "."


def say_four(lines: Sequence[Line]) -> str:
    """Return a sentence on the share of each of the four processes, by the owners of the sockets."""
    taken = [(line.scenario.connections, each) for line in lines if line.scenario.four for each in line.product.connections]
    spread = "; ".join(f"{total} connections as {' + '.join(map(str, each))}" for total, each in taken)
    return f"Rows 5 and 6 are four processes (`guerdon serve --workers 4`), and the other is one process on the same database. The four took {spread}."
