"""One self-contained page from a template: the report, the comparison and the benchmarks share its style, its script and its policy."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def fill(template: str, content: dict[str, Any], *, folder: Path = TEMPLATES) -> str:
    """The page's text. All of `content` is escaped but for what is `Markup` already, such as figures; style and script go in as they are.

    Args:
        template: file name in `folder`; what it imports may also stand in `TEMPLATES`. It is given `style`, `script`, and the script's
            SHA-256 as the page's security policy wants it, `script_digest`. A name that it does not get is an error.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        **content,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
