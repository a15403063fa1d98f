"""`fewshotseg app`: the web page."""

from __future__ import annotations

import asyncio
import os
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from FewShotSegLib.commands.console import show_file, show_warning
from FewShotSegLib.errors import ConfigError

TOKEN = "FEWSHOTSEG_TOKEN"
NEEDED = ("aiohttp", "trame", "trame_slicer", "slicer")


def app(
    host: Annotated[str, typer.Option(help="Where to listen. Beyond this computer it needs --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8085,
    token: Annotated[
        str,
        typer.Option(
            help="What opens the page, at least 16 characters; better given by FEWSHOTSEG_TOKEN.", show_default="a new one"
        ),
    ] = "",
    certificate: Annotated[Path | None, typer.Option(help="PEM file, for https; with --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    sessions: Annotated[int, typer.Option(help="How many pages may be open at once; each is a process.")] = 4,
    idle_minutes: Annotated[float, typer.Option(help="A page without traffic for so long is closed.")] = 30.0,
    upload_mb: Annotated[float, typer.Option(help="Largest upload, and largest content of a zip, in MB.")] = 2048.0,
    checkpoint: Annotated[str, typer.Option(help="Name or path; see `fewshotseg checkpoints`.", show_default="built in")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    small_sample: Annotated[bool, typer.Option("--small-sample", help="A sample case of 24 slices of 128 x 128.")] = False,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = False,
) -> None:
    """Serve the whole job as a web page: draw an organ in the browser, segment it, correct, download."""
    check_installed()
    from FewShotSegLib.app.access import is_loopback, tls_advice
    from FewShotSegLib.app.config import SAMPLE_SHAPE, SMALL_SAMPLE_SHAPE, AppConfig
    from FewShotSegLib.app.gateway import serve
    from FewShotSegLib.app.methods import usable_methods

    usable_methods(checkpoint)  # one that is not there is told before anything is served
    config = AppConfig(
        host=host,
        port=port,
        token=token or os.environ.get(TOKEN, ""),
        certificate=certificate,
        key=key,
        sessions=sessions,
        idle_minutes=idle_minutes,
        upload_mb=upload_mb,
        checkpoint=checkpoint,
        device=device,
        sample_shape=SMALL_SAMPLE_SHAPE if small_sample else SAMPLE_SHAPE,
    )
    if not is_loopback(host) and not config.https:
        show_warning(f"The page is not encrypted and other computers can reach it: {tls_advice(certificate)}.")

    def ready(address: str) -> None:
        show_file("Open", address)
        show_file("Stop", "Ctrl-C")
        if browser:
            webbrowser.open(address)

    with suppress(KeyboardInterrupt):
        asyncio.run(serve(config, ready))


def check_installed() -> None:
    """Say what to install when the page's packages are not there. Raises ConfigError."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The web page needs packages that are not installed: {', '.join(missing)}",
            "the extra 'app'",
            "pip install 'fewshotseg[app]'",
        )
