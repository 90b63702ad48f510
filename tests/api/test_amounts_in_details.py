"""Details of refusals write amounts as people read them; their members keep minor units."""

from collections.abc import AsyncIterator

import pytest_asyncio

from guerdon.wiring.services import Services
from tests.clients import Caller, problem
from tests.factories import Factory


@pytest_asyncio.fixture
async def wallets(service: Caller, factory: Factory) -> AsyncIterator[dict[str, str]]:
    """A wallet with 1,250 minor units in each of three assets of different scales."""
    assert (await service.post("/v1/assets", {"code": "KWD", "scale": 3}, key=None)).status_code == 201
    member = await factory.member()
    wallets = {asset: f"{member}:{asset}" for asset in ("PTS", "GBP", "KWD")}
    for wallet in wallets.values():
        assert (await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1250})).status_code == 201
    yield wallets
    await factory.assert_books_balance()


async def test_a_refused_debit_names_amounts_with_their_currency(service: Caller, wallets: dict[str, str]) -> None:
    details = {}
    for asset, wallet in wallets.items():
        refused = problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 100_000}), 409, "insufficient-funds")
        assert (refused["available"], refused["needed"]) == (1250, 100_000)
        details[asset] = refused["detail"]
    assert details == {
        "PTS": "1,250 PTS available, 100,000 PTS needed",
        "GBP": "£12.50 available, £1,000.00 needed",
        "KWD": "KWD 1.250 available, KWD 100.000 needed",
    }


async def test_a_replayed_refusal_is_the_first_one_byte_for_byte(service: Caller, wallets: dict[str, str]) -> None:
    path = f"/v1/wallets/{wallets['GBP']}/debit"
    first, again = [(await service.post(path, {"amount": 2000}, key="once")).json() for _ in range(2)]
    assert first["detail"] == "£12.50 available, £20.00 needed"
    assert {**first, "request_id": ""} == {**again, "request_id": ""}


async def test_limits_holds_and_reversals_name_amounts(service: Caller, wallets: dict[str, str]) -> None:
    path = f"/v1/wallets/{wallets['GBP']}"
    assert (await service.put(f"{path}/terms", {"day_limit": 500, "ceiling": 2000})).is_success
    spent = problem(await service.post(f"{path}/debit", {"amount": 501}), 409, "limit-reached")
    assert (spent["detail"], spent["limit"]) == ("the daily limit is £5.00: £0.00 spent, £5.01 needed", 500)
    full = problem(await service.post(f"{path}/credit", {"amount": 751}), 409, "balance-limit")
    assert full["detail"] == "the balance would exceed £20.00"
    hold = (await service.post("/v1/holds", {"wallet": wallets["GBP"], "amount": 300})).json()["id"]
    captured = problem(await service.post(f"/v1/holds/{hold}/capture", {"amount": 301}), 409, "capture-limit")
    assert (captured["detail"], captured["left"]) == ("the hold has £3.00 left, £3.01 requested", 300)
    closed = problem(await service.post(f"{path}/close", {}, key=None), 409, "wallet-not-empty")
    assert (closed["detail"], closed["balance"]) == ("the wallet still holds £12.50", 1250)
    credit = (await service.post(f"{path}/credit", {"amount": 100})).json()["id"]
    reversed_ = problem(await service.post(f"/v1/transactions/{credit}/reverse", {"amount": 101}), 409, "reversal-limit")
    assert (reversed_["detail"], reversed_["left"]) == ("£1.00 left to reverse, £1.01 requested", 100)


async def test_an_asset_that_another_process_created_is_written_in_minor_units(
    service: Caller, services: Services, wallets: dict[str, str]
) -> None:
    services.assets._known.pop("KWD")
    refused = problem(await service.post(f"/v1/wallets/{wallets['KWD']}/debit", {"amount": 2000}), 409, "insufficient-funds")
    assert refused["detail"] == "1,250 minor units of KWD available, 2,000 minor units of KWD needed"
