"""Amounts of money and points: bounded whole numbers of minor units, never floats."""

from collections.abc import Callable
from typing import Annotated, Literal

from msgspec import Meta

from guerdon.types import EXPECTED

AMOUNT_MAX = 10**15
BALANCE_CEILING = 10**18
"""Maximum balance. The sum of any two balances is below 2^63, the limit of BSON integers."""

Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Whole minor units of the asset, 1 to 10^15.", examples=[500])]
AssetCode = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z][A-Z0-9]{1,11}$(?!\n)",
        extra={EXPECTED: "must be an asset code: 2 to 12 capital letters and digits, the first a letter"},
        description="Asset code, for example PTS or GBP.",
        examples=["PTS"],
    ),
]
Rounding = Literal["floor", "ceil", "half_even"]


def is_asset_code(asset: str) -> bool:
    """Return True for an asset, and False for what accounts that count have in its place, such as `budget` or the name of a period."""
    return "A" <= asset[:1] <= "Z"


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """Return the quotient, rounded once in the given direction (`floor` is toward minus infinity)."""
    quotient, remainder = divmod(numerator, denominator)
    if not remainder or rounding == "floor":
        return quotient
    if rounding == "ceil":
        return quotient + 1
    twice = remainder * 2 - denominator
    return quotient + (twice > 0 or (twice == 0 and quotient % 2))


# --- amounts as people read them ------------------------------------------------------------------------------------

_SYMBOLS = {
    "AUD": "A$", "BRL": "R$", "CAD": "CA$", "CNY": "CN¥", "EUR": "€", "GBP": "£", "HKD": "HK$", "ILS": "₪", "INR": "₹", "JPY": "¥", "KRW": "₩",
    "MXN": "MX$", "NGN": "₦", "NZD": "NZ$", "PHP": "₱", "TRY": "₺", "TWD": "NT$", "UAH": "₴", "USD": "$", "VND": "₫",
}  # fmt: skip
"""Symbols of common currencies, each of one currency only."""
_ISO_4217 = """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
    CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR
    ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT
    MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
    SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES
    VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG
"""
_CURRENCIES = frozenset(_ISO_4217.split())
"""Codes of currencies. Amounts of other assets are written like `189 PTS`."""


def is_currency(asset: str) -> bool:
    """Return True if the asset is a currency of ISO 4217."""
    return asset in _CURRENCIES


def display(amount: int, asset: str, scale: int) -> str:
    """Return an amount of minor units as people read it: `£6.99`, `¥1,000`, `KWD 1.250` or `189 PTS`."""
    whole, fraction = divmod(abs(amount), 10**scale)
    sign = "-" if amount < 0 else ""
    number = f"{whole:,}.{fraction:0{scale}}" if scale else f"{whole:,}"
    if asset in _SYMBOLS:
        return f"{sign}{_SYMBOLS[asset]}{number}"
    return f"{asset} {sign}{number}" if asset in _CURRENCIES else f"{sign}{number} {asset}"


ScaleOf = Callable[[str], int | None]
"""Returns the decimal places of an asset, or None where they are not known."""


def scale_unknown(_asset: str) -> None:
    """Stand in for the scales of assets where they are not known."""


class AmountText:
    """A text with amounts of one asset: a template whose fields are amounts in minor units. It is written where the scale is known."""

    def __init__(self, template: str, asset: str, **amounts: int) -> None:
        self._template = template
        self._asset = asset
        self._amounts = amounts

    def text(self, scale_of: ScaleOf) -> str:
        """Return the text with its amounts as people read them, or in minor units where the scale is not known."""
        scale = scale_of(self._asset)
        written = {
            name: f"{amount:,} minor unit{'s' if amount != 1 else ''} of {self._asset}"
            if scale is None
            else display(amount, self._asset, scale)
            for name, amount in self._amounts.items()
        }
        return self._template.format(**written)
