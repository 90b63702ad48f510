"""MDB-1: every command that the write paths send, as the driver saw it leave."""

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import WriteConcern, monitoring

from guerdon.ledger.contention import CONTENTION_LEASES
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.conftest import DATABASE
from tests.factories import Factory
from tests.invariants.balance_model import Spec
from tests.invariants.movements import answer, bulk, fresh_key, open_wallets

WRITES = {"insert", "update", "delete", "findAndModify", "create", "createIndexes", "drop", "dropDatabase"}
READS = {"find", "aggregate", "count", "distinct", "getMore"}
BOOKS = {ACCOUNTS, ENTRIES}


class Recorder(monitoring.CommandListener):
    """Keeps what is sent to the test database while it is told to."""

    def __init__(self) -> None:
        self.on = False
        self.commands: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.on and (event.database_name == DATABASE or event.command_name == "commitTransaction"):
            self.commands.append({"$name": event.command_name, **event.command})

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    def named(self, *names: str) -> list[dict[str, Any]]:
        return [command for command in self.commands if command["$name"] in names]


_recorder = Recorder()
# The driver offers no way back; a recorder that is off costs one comparison for each command.
monitoring.register(_recorder)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    _recorder.commands.clear()
    _recorder.on = True
    yield _recorder
    _recorder.on = False


async def drive_everything(services: Services, service: Caller, factory: Factory) -> None:
    """Every write path: members, assets, campaigns, events, credit, debit, transfer, bulk, refusals, replays."""
    factory_wallet = await factory.wallet(50)
    fresh_code = "S" + factory_wallet.removeprefix("mem_")[22:32].upper()
    assert (await service.post("/v1/assets", {"code": fresh_code, "scale": 0})).status_code == 201
    campaign = await factory.campaign(clawback="debt")
    assert (await service.post(f"/v1/campaigns/{campaign}/pause")).status_code == 200
    assert (await service.post(f"/v1/campaigns/{campaign}/activate")).status_code == 200
    event = factory.event()
    assert [(await service.post("/v1/events", event)).status_code for _ in range(2)] == [201, 200]
    assert (await service.post("/v1/events", factory.event(type="refund"))).status_code == 201
    registered = await service.post("/v1/auth/register", {"email": "a@example.org", "password": "correct horse battery 9"})
    assert registered.status_code == 201, registered.text
    source, target = await open_wallets(services, 2, 100)
    specs = [
        Spec("debit", source, 1, fresh_key(), None, "order-1"),
        Spec("debit", source, 1, fresh_key(), None, "order-1"),
        Spec("transfer", source, 5, fresh_key(), target),
        Spec("debit", source, 10**9, fresh_key()),
        Spec("debit", factory_wallet, 50, fresh_key()),
    ]
    codes = [(await answer(services, spec)).code for spec in [*specs, *specs]]
    assert codes == [None, "reference-reused", None, "insufficient-funds", None] * 2
    for atomic in (False, True):
        group = [Spec("credit", source, 1, fresh_key()), Spec("transfer", source, 1, fresh_key(), target)]
        assert [each.code for each in await bulk(services, group, atomic=atomic)] == [None, None]


async def test_every_command_has_the_required_read_and_write_concerns(
    services: Services, service: Caller, factory: Factory, recorder: Recorder
) -> None:
    await drive_everything(services, service, factory)
    recorder.on = False
    begun = [command for command in recorder.commands if command.get("startTransaction")]
    commits = recorder.named("commitTransaction")
    assert len(commits) >= 10
    assert 0 <= len(begun) - len(commits) <= 2, "only a repeated key on a kept account makes a batch begin twice"
    for command in begun:
        assert command["readConcern"]["level"] == "snapshot", command
    for command in commits:
        assert command["writeConcern"] == {"w": "majority", "j": True}, command
    alone = [command for command in recorder.named(*WRITES) if "autocommit" not in command]
    for command in alone:
        assert command["writeConcern"]["w"] == "majority", command
        assert command["writeConcern"]["j"] is True, command
    for command in recorder.commands:
        assert command.get("$readPreference", {"mode": "primary"})["mode"] == "primary", command
    for command in recorder.named(*WRITES):
        assert command["$name"] not in {"delete", "findAndModify", "drop", "dropDatabase"}, command
        if command["$name"] in {"insert", "update"} and command[command["$name"]] in BOOKS:
            assert command.get("autocommit") is False, "accounts and entries are written in transactions only"
    for command in recorder.named("find", "aggregate"):
        # Leases are advisory, and the newest queue is wanted rather than the one that survives a failover.
        if "autocommit" not in command and command.get("find") != CONTENTION_LEASES:
            assert command["readConcern"]["level"] in {"majority", "snapshot"}, command


async def test_entries_are_inserted_and_never_updated(
    services: Services, service: Caller, factory: Factory, recorder: Recorder
) -> None:
    await drive_everything(services, service, factory)
    written = {(command["$name"], command[command["$name"]]) for command in recorder.named("insert", "update", "delete")}
    assert ("insert", ENTRIES) in written
    assert ("update", ENTRIES) not in written
    assert ("delete", ENTRIES) not in written
    assert ("update", ACCOUNTS) in written


@pytest.mark.parametrize("kept", [True, False])
async def test_debit_costs_one_read_one_insert_one_update_and_one_commit(
    services: Services, recorder: Recorder, kept: bool
) -> None:
    """A debit of a wallet that the process has written last needs no read."""
    [wallet] = await open_wallets(services, 1, 10)
    if not kept:
        services.ledger._committer._kept.drop([wallet])
    recorder.commands.clear()
    assert (await answer(services, Spec("debit", wallet, 1, fresh_key()))).code is None
    read = [] if kept else ["aggregate"]
    assert [command["$name"] for command in recorder.commands] == [*read, "insert", "update", "commitTransaction"]
    [insert] = recorder.named("insert")
    [update] = recorder.named("update")
    assert (insert["insert"], len(insert["documents"])) == (ENTRIES, 1)
    assert (update["update"], len(update["updates"])) == (ACCOUNTS, 1)


async def test_a_refused_and_a_repeated_debit_touch_no_account(services: Services, recorder: Recorder) -> None:
    [wallet] = await open_wallets(services, 1, 10)
    spec = Spec("debit", wallet, 11, fresh_key())
    paid = Spec("debit", wallet, 1, fresh_key())
    assert (await answer(services, paid)).code is None
    assert (await answer(services, spec)).code == "insufficient-funds"
    recorder.commands.clear()
    assert (await answer(services, paid)).replayed
    assert (await answer(services, spec)).replayed
    assert [command["$name"] for command in recorder.commands] == ["aggregate", "aggregate"]


def names_owner(command: dict[str, Any]) -> bool:
    """Whether every part of a command on the books can be routed by the owner."""
    name = command["$name"]
    if name == "insert":
        return all("owner" in document for document in command["documents"])
    if name == "update":
        return all("owner" in update["q"] for update in command["updates"])
    if name == "find":
        return "owner" in command["filter"]
    stages = command["pipeline"]
    unions = [stage["$unionWith"] for stage in stages if "$unionWith" in stage]
    matches = [union["pipeline"][0]["$match"] for union in unions if union["coll"] in BOOKS]
    return all("owner" in match for match in [stages[0]["$match"], *matches])


async def test_ledger_commands_on_a_sharded_cluster_name_the_owner(
    services: Services, service: Caller, factory: Factory, recorder: Recorder
) -> None:
    services.database.sharded = True
    await drive_everything(services, service, factory)
    recorder.on = False
    touched = [command for command in recorder.named("insert", "update", "find", "aggregate") if command[command["$name"]] in BOOKS]
    assert {command["$name"] for command in touched} >= {"insert", "update", "aggregate"}
    scattered = [command for command in touched if not names_owner(command)]
    assert scattered == [], [(command["$name"], command.get("filter")) for command in scattered]


async def test_reading_a_wallet_names_the_owner(service: Caller, factory: Factory, recorder: Recorder) -> None:
    wallet = await factory.wallet(5)
    recorder.commands.clear()
    assert (await service.get(f"/v1/wallets/{wallet}")).status_code == 200
    assert (await service.get(f"/v1/wallets/{wallet}/entries")).status_code == 200
    touched = [command for command in recorder.named("find") if command["find"] in BOOKS]
    assert len(touched) == 3
    assert all(names_owner(command) for command in touched)


async def test_recorder_sees_a_weak_write_concern(services: Services, recorder: Recorder) -> None:
    """A listener that hears nothing would pass everything: a write with a weak concern must show."""
    weak = services.database.raw["weak"].with_options(write_concern=WriteConcern(w=1))
    await weak.insert_one({"_id": 1})
    await weak.drop()
    [insert] = recorder.named("insert")
    assert insert["writeConcern"] == {"w": 1}
