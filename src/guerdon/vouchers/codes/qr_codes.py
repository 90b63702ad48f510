"""Codes as QR codes (ISO/IEC 18004) and as printable pages."""

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape

import segno

SVG_TYPE, PNG_TYPE, HTML_TYPE = "image/svg+xml", "image/png", "text/html; charset=utf-8"
_STYLE = """@page{margin:10mm}body{font:11pt/1.3 system-ui,sans-serif;margin:0;color:#000;background:#fff}
h1{font-size:13pt;margin:0 0 4mm}ul{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(3,1fr);gap:4mm}
li{border:1px dashed #999;padding:3mm;text-align:center;break-inside:avoid}svg{width:32mm;height:32mm}
code{display:block;font:10pt/1.4 ui-monospace,monospace;overflow-wrap:anywhere}small{color:#333}"""
_STYLE_SHA256 = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
SHEET_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_SHA256}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of a printed page, which has this one style and loads nothing."""


MM_PER_PIXEL = 25.4 / 96
"""Size of a pixel in print, as in CSS."""


def svg_of(text: str, scale: int, border: int) -> bytes:
    """Return the SVG image with a size in millimetres and a view box, so that a page can give it any other size."""
    out = io.BytesIO()
    _qr(text).save(out, kind="svg", scale=round(scale * MM_PER_PIXEL, 3), border=border, unit="mm")
    return out.getvalue()


def png_of(text: str, scale: int, border: int) -> bytes:
    """Return the PNG image with its resolution, so that it prints in the size of the SVG image."""
    out = io.BytesIO()
    _qr(text).save(out, kind="png", scale=scale, border=border, dpi=96)
    return out.getvalue()


def _qr(text: str) -> segno.QRCode:
    # Level M restores 15 % of the symbol. Not every scanner reads Micro QR codes.
    return segno.make_qr(text, error="m")


def sheet_of(title: str, codes: Sequence[tuple[str, str]], first: int, total: int, note: str) -> str:
    """Return a printable page. `codes` are pairs: the content of the QR code and the text below it."""
    cells = "".join(
        f"<li>{_qr(content).svg_inline(border=2, omitsize=True)}<code>{escape(shown)}</code><small>{escape(note)}</small></li>"
        for content, shown in codes
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)} · {first} to {first + len(codes) - 1} of {total}</h1><ul>{cells}</ul></body></html>"
    )
