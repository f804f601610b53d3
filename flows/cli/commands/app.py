"""``audioset app``: the page on which people search, listen, judge and teach."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.shared_options import Store


def app(
    *,
    host: Annotated[
        str,
        typer.Option(
            help="Address of this machine to serve on. On another than 127.0.0.1 a token is asked "
            "for: the one of AUDIOSET_APP_TOKEN, or a new one, which is printed."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port; 0 for any that is free.")
    ] = 8001,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Nobody can judge, teach or change anything.")
    ] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the web browser.")] = False,
    store: Store,
) -> None:
    """Search, listen, judge and teach in the web browser, also while recordings are labelled.

    The page needs no other network. Stop it with Ctrl-C.
    """
    from flows.app.serving import serve_app

    with store.database() as engine:
        serve_app(engine, store.home, host=host, port=port, read_only=read_only, show=show)
