"""Pages that need no server and no network: one file, everything inside, escaped.

File names can only become text: templates escape them, data for scripts is JSON that cannot end its
element, and the page's own policy allows only the script that is shipped with it, and no loading.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.terminal import clock, one_line

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).with_name("templates")
SHARED_FILES = {name: _FOLDER / name for name in ("common.css", "collection.css", "collection.js")}
"""What the app's pages share with these: colours and sizes, and pictures of a collection."""


def render(name: str, values: Mapping[str, Any], shared: Sequence[str] = ()) -> bytes:
    """The page `name` of the folder `templates`, with its style and script, as UTF-8.

    Before these come the ones of `shared`, which other pages have too.

    The template uses the values; `policy`, `style` and `script` are added to them.
    """
    from markupsafe import Markup

    style = "".join(_shipped(f"{part}.css") for part in ("common", *shared, name))
    script = "".join(_shipped(f"{part}.js") for part in (*shared, name))
    page = (
        environment(_FOLDER)
        .get_template(f"{name}.html")
        .render(
            policy=_policy(style, script),
            style=Markup(style),  # noqa: S704 (files of this package)
            script=Markup(script),  # noqa: S704
            **values,
        )
    )
    return page.encode("utf-8", "backslashreplace")


@cache
def environment(folder: Path) -> Environment:
    """The templates of a folder, and those of this package that others share.

    They escape what is put into them, and know the filters.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader([folder, _FOLDER]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(line=one_line, clock=clock, count="{:,}".format, hours=shown_hours)
    return found


def data_url(kind: str, content: bytes) -> str:
    """The content as a URL that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shown_hours(hours: float) -> str:
    """``0.0021`` -> ``8 s``; ``0.5`` -> ``30 min``; ``1234.5`` -> ``1,234 h``."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.1f} min" if hours < 1 / 6 else f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"


def _shipped(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Only this script and this style are used, and nothing is loaded but data in the page."""
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
