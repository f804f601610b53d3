"""Parts of a sound that is in memory: players ask for them to jump to a place.

Source: RFC 9110, section 14.
"""

from __future__ import annotations

import re

from fastapi import Request, Response


def ranged(request: Request, content: bytes, media_type: str) -> Response:
    """The content, or the part that the request's ``Range`` names (of several, the whole)."""
    headers = {"accept-ranges": "bytes", "cache-control": "private, max-age=3600"}
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if found is None or found.groups() == ("", ""):
        return Response(content, media_type=media_type, headers=headers)
    first, last = found.groups()
    if first:
        begin, end = int(first), min(int(last or len(content)), len(content) - 1)
    else:
        begin, end = max(0, len(content) - int(last)), len(content) - 1
    if begin > end:
        return Response(status_code=416, headers={"content-range": f"bytes */{len(content)}"})
    headers["content-range"] = f"bytes {begin}-{end}/{len(content)}"
    return Response(content[begin : end + 1], 206, media_type=media_type, headers=headers)
