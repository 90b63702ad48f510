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


def svg_of(text: str, scale: int, border: int) -> bytes:
    return _render(text, "svg", scale, border)


def png_of(text: str, scale: int, border: int) -> bytes:
    return _render(text, "png", scale, border)


def _qr(text: str) -> segno.QRCode:
    # Level M restores 15 % of the symbol. Not every scanner reads Micro QR codes.
    return segno.make_qr(text, error="m")


def _render(text: str, kind: str, scale: int, border: int) -> bytes:
    out = io.BytesIO()
    _qr(text).save(out, kind=kind, scale=scale, border=border)
    return out.getvalue()


def sheet_of(title: str, codes: Sequence[tuple[str, str]], first: int, total: int, note: str) -> str:
    """Return a printable page. `codes` are pairs: the content of the QR code and the text below it."""
    cells = "".join(
        f"<li>{_qr(content).svg_inline(border=2)}<code>{escape(shown)}</code><small>{escape(note)}</small></li>"
        for content, shown in codes
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)} · {first} to {first + len(codes) - 1} of {total}</h1><ul>{cells}</ul></body></html>"
    )
