"""Assets. They never change, so they are cached."""

from guerdon.clock import Clock
from guerdon.database import Database, DuplicateKeyError
from guerdon.errors import AlreadyExists
from guerdon.wallets.models import ASSETS, Asset, AssetCreate

BUILT_IN = {"PTS": 0, "GBP": 2}
ASSETS_MAX = 1000


class Assets:
    """Units of value that wallets can hold."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._collection = database.collection(ASSETS, Asset)
        self._clock = clock
        self._known: dict[str, Asset] = {}

    async def create(self, body: AssetCreate) -> Asset:
        """Create an asset.

        Raises:
            AlreadyExists: The code is in use.
        """
        asset = Asset(code=body.code, scale=body.scale, created_at=self._clock.now_ms())
        try:
            await self._collection.insert(asset)
        except DuplicateKeyError:
            raise AlreadyExists(f"the asset {body.code} already exists", field="code") from None
        self._known[asset.code] = asset
        return asset

    async def open(self) -> None:
        """Create PTS and GBP where they do not exist, and read all assets. Several processes may do this at the same time."""
        for code, scale in BUILT_IN.items():
            if not await self.exists(code):
                try:
                    await self._collection.insert(Asset(code=code, scale=scale, created_at=self._clock.now_ms()))
                except DuplicateKeyError:
                    continue
        self._known = {asset.code: asset for asset in await self.list_assets()}

    def scale_of(self, code: str) -> int | None:
        """Return the decimal places of an asset. None if another process has created it and this one has not met it yet."""
        asset = self._known.get(code)
        return None if asset is None else asset.scale

    async def exists(self, code: str) -> bool:
        if code not in self._known:
            asset = await self._collection.get(code)
            if asset is None:
                return False
            self._known[code] = asset
        return True

    async def list_assets(self) -> list[Asset]:
        return await self._collection.find({}, sort=[("_id", 1)], limit=ASSETS_MAX)
