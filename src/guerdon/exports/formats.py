"""File formats of exports, and the extras that they need."""

from importlib.util import find_spec
from typing import Literal

from msgspec import Struct

from guerdon.exports.csv_files import encode_csv
from guerdon.exports.parquet_files import encode_parquet
from guerdon.exports.tables import Encoder
from guerdon.exports.xlsx_files import encode_xlsx

FileFormat = Literal["csv", "parquet", "xlsx"]
XLSX_ROWS_MAX = 50_000


class FormatSpec(Struct, frozen=True):
    """Encoding and media type of a format."""

    media_type: str
    encode: Encoder
    packages: tuple[str, ...] = ()
    """Modules that the format needs. The extra has the name of the format."""
    compresses: bool = False
    """True if the file is stored compressed, and sent compressed to clients that accept gzip."""
    rows_max: int | None = None
    """Maximum number of rows of the format, if it has one."""


FORMATS: dict[FileFormat, FormatSpec] = {
    "csv": FormatSpec("text/csv; charset=utf-8", encode_csv, compresses=True),
    "parquet": FormatSpec("application/vnd.apache.parquet", encode_parquet, ("arro3.core", "arro3.io")),
    "xlsx": FormatSpec(
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", encode_xlsx, ("xlsxwriter",), rows_max=XLSX_ROWS_MAX
    ),
}


def missing_extra(name: FileFormat) -> str | None:
    """Return the sentence that names the extra which the format needs, or None if it is installed."""
    if all(map(_is_installed, FORMATS[name].packages)):
        return None
    return f"this installation cannot write {name}: install the extra, pip install 'guerdon[{name}]', or use csv"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
