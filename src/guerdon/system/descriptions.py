"""Texts of the OpenAPI document that no declaration carries: its first page, its tags and its path parameters."""

TITLE = "Guerdon API"
DESCRIPTION = """\
Wallets, rewards, tiers, offers and vouchers for a loyalty programme, on your own servers.

**Log in.** Send `Authorization: Bearer …` with a service key (for shops and points of sale) or an access token from `POST /v1/auth/login` (for
members and staff).

**Amounts** are whole numbers of minor units of their asset: 699 is £6.99 for `GBP`, which has two decimal places, and 699 points for `PTS`,
which has none.

**Retries are safe.** A request that moves value needs an `Idempotency-Key`. Send it again with the same key and the same body, and it answers
what it answered the first time. An event is identified by its own `id` in the same way.

**Errors** are problem documents (RFC 9457). Use their `code` in programs; `type` is the address of a page that explains it. `422` lists
every field that is not acceptable.

**Lists** have the newest items first. Send `next_cursor` of a page as `cursor` to get the next one.

**Times** are RFC 3339. Answers are in UTC with milliseconds; requests need an offset, for example `2026-01-31T12:00:00Z`.
"""

TAGS = {
    "auth": "Log in, refresh and end sessions, passwords, second factors, and the public keys of access tokens.",
    "members": "Create and read members, staff and their roles.",
    "privacy": "Export and erase the personal data of a member.",
    "keys": "Create and revoke service keys.",
    "audit": "Read the audit log.",
    "wallets": "Credit, debit and transfer value; read balances, entries and statements; freeze, close and limit a wallet.",
    "holds": "Set value aside, and capture or release it.",
    "transactions": "Post several changes of wallets in one commit; read and reverse transactions.",
    "exchanges": "Set rates between assets, and exchange value of members at them.",
    "assets": "Create and list the units of value that wallets hold.",
    "events": "Send what happens in the shop, and get the awards that campaigns make of it.",
    "campaigns": "Define which events earn what, and simulate a campaign on past events.",
    "tiers": "Define tiers, and read the tier of a member.",
    "segments": "Read the groups of members by recency, frequency and money, define segments by conditions, and list their members.",
    "offers": "Define what members can redeem for points, with stock and limits.",
    "vouchers": "List and redeem vouchers; validate, reserve and use them at a point of sale.",
    "codes": "Generate, import, print and export codes of vouchers.",
    "referrals": "Read referral codes, and record who referred a member.",
    "reports": "Read reports for finance and marketing, and the trial balance of the books; set what a point is worth in them.",
    "closings": "Close months, and read the frozen figures of closed ones.",
    "exports": "Write lists and reports to files, and download them.",
    "test": "Move the clock of a development server.",
    "operations": "Health, metrics, this document, and the pages of problem types.",
}
"""Description of each tag, in the order of the page."""

PATH_PARAMETERS = {
    "account": ("Name of an account of the books.", "system:issuer"),
    "asset": ("Code of an asset.", "PTS"),
    "batch_id": ("Id of a code batch.", "bat_019a7f3c2d1e4b5a69788796a5b4c3d2"),
    "campaign_id": ("Id of a campaign.", "cmp_019a7f3c2d1e4b5a69788796a5b4c3d2"),
    "code": ("Code of a voucher as printed, or its id. Case and hyphens are ignored.", "SUMMER-7K2QM-9XW4T-B6HJD"),
    "event_id": ("Id that the event was sent with.", "order-1001"),
    "export_id": ("Id of an export.", "exp_019a7f3c2d1e4b5a69788796a5b4c3d2"),
    "group": ("Name of a group of views.", "books"),
    "hold_id": ("Id of a hold.", "hld_mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS:4"),
    "key_id": ("Id of a service key: the part between `gk_live_` and the secret.", "4Kc0xVqYb2Pz"),
    "member_id": ("Id of a member.", "mem_019a7f3c2d1e4b5a69788796a5b4c3d2"),
    "pair": ("Id of a rate: the codes of two assets.", "PTS-GBP"),
    "month": ("Calendar month in the time zone of the programme.", "2026-01"),
    "name": ("Name of a file of the documentation page.", "swagger-ui.css"),
    "offer_id": ("Id of an offer.", "off_019a7f3c2d1e4b5a69788796a5b4c3d2"),
    "run_id": ("Id of a run of segments.", "sgr_019a7f3c2d1e4b5a69788796a5b4c3d2"),
    "segment": ("Name of a segment.", "champions"),
    "session_id": ("Id of a session.", "mem_019a7f3c2d1e4b5a69788796a5b4c3d2:9fK2mQ7xLp0a"),
    "simulation_id": ("Id of a simulation.", "sim_019a7f3c2d1e4b5a69788796a5b4c3d2"),
    "transaction_id": ("Id of a transaction.", "txn_mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS:3"),
    "wallet_id": (
        "Id of a wallet: the id of its member, a colon and the code of its asset.",
        "mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS",
    ),
    "/problems/{code}": ("Code of a problem type.", "insufficient-funds"),
}
"""Description and example of a path parameter by its name, or by its path where the name has another meaning there."""
