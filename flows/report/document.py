"""An HTML document that needs nothing else: it can be mailed, printed and kept.

Texts of datasets, teachers, students and configurations are data: every one goes through `escaped`, or as JSON through
`data_block`. The document loads nothing, whatever they hold, and runs no script but its own, which it names by a hash.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from typing import Any

from flows.report.style import STYLE
from flows.terminal import inert

_IN_SCRIPT = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def document(title: str, body: str, script: str = "", style: str = "") -> str:
    """The whole document.

    Args:
        title: plain text.
        body: HTML.
        script: JavaScript of ours, that runs once the body is there; nothing of anybody else's.
        style: CSS after the style sheet that all documents share.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # With trusted types a text cannot become HTML by mistake: `innerHTML` and its like refuse every text.
        policy += f"; script-src 'sha256-{digest}'; require-trusted-types-for 'script'; trusted-types 'none'"
        script = f"<script>{script}</script>"
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta http-equiv='Content-Security-Policy' content=\"{policy}\">"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style></head><body>{body}{script}</body></html>\n"
    )


def escaped(text: str) -> str:
    """Somebody else's text, with nothing in it that HTML or SVG would act on, and no invisible characters that turn
    its direction."""
    return html.escape(inert(text), quote=True)


def data_block(name: str, rows: Iterable[str]) -> str:
    """Data for the document's script: a list, each of its rows as `json_row` writes it."""
    return f"<script type='application/json' id='{name}'>[{','.join(rows)}]</script>"


def json_row(row: Any) -> str:
    """JSON with nothing in it that ends a script; its texts are inert."""
    text = json.dumps(_inert(row), ensure_ascii=False, separators=(",", ":"))
    return text.translate(_IN_SCRIPT)


def _inert(value: Any) -> Any:
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, list):
        return [_inert(one) for one in value]
    if isinstance(value, dict):
        return {name: _inert(one) for name, one in value.items()}
    return value
