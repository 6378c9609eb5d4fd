"""`fauve obs`: the painted picture in OBS Studio, without a click."""

import contextlib
import threading
from typing import Any

import click

from pipeline.commands.live import address, live
from pipeline.errors import SinkError
from pipeline.obs import Obs, by_hand, link
from pipeline.sources.live import parse


def _of_obs(command: Any) -> Any:
    for option in (
        click.option(
            "--password", default="", envvar="FAUVE_OBS_PASSWORD", help="Password of OBS's WebSocket server."
        ),
        click.option(
            "--port", type=int, default=4455, show_default=True, help="Port of OBS's WebSocket server."
        ),
        click.option("--host", default="127.0.0.1", show_default=True, help="Where OBS runs."),
    ):
        command = option(command)
    return command


@click.group()
def obs() -> None:
    """Show the painted picture in OBS Studio (28 or later)."""


@obs.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Options of `fauve live` go behind SOURCE: fauve obs connect camera:0 --strength 0.8",
)
@_of_obs
@click.option("--by-hand", "manual", is_flag=True, help="Print how to do it in OBS by hand, and stop.")
@click.argument("source", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def connect(
    context: click.Context,
    host: str,
    port: int,
    password: str,
    manual: bool,
    source: str | None,
    options: tuple[str, ...],
) -> None:
    """Make a Media Source in OBS, paint SOURCE into it, and check that OBS shows it moving."""
    if manual:
        click.echo(by_hand(host))
        return
    if source is None:
        raise click.UsageError("give a source to paint, such as camera:0")
    studio, how = Obs(host, port, password), link(host)
    # What is refused leaves OBS as it is.
    with live.make_context("live", [source, "-o", how.output, *options], parent=context) as inner:
        if not address(source).startswith(("test:", "whip:", "srt:")):
            parse(address(source))
        inner.with_resource(studio.alone())
        studio.connect(how)
        click.echo(f"OBS has a Media Source now, {how.settings['input']}", err=True)
        moving = threading.Event()
        checking = threading.Thread(target=_check, args=(studio, moving), name="check", daemon=True)
        checking.start()
        try:
            live.invoke(inner)
        except Exception:
            # One that was shown has its place in the scene, whatever went wrong later.
            if studio.made and not moving.is_set():
                with contextlib.suppress(SinkError):
                    studio.remove()
            raise


def _check(studio: Obs, moving: threading.Event) -> None:
    try:
        moves = studio.moves()
    except SinkError as error:
        click.echo(f"fauve: {error}", err=True)
        return
    if moves:
        moving.set()
        click.echo("OBS shows the painted picture moving", err=True)
    else:
        click.echo("fauve: OBS shows no moving picture yet; by hand it goes like this:", err=True)
        click.echo(by_hand(studio.host), err=True)


@obs.command()
@_of_obs
def remove(host: str, port: int, password: str) -> None:
    """Take the Media Source away again."""
    there = Obs(host, port, password).remove()
    click.echo("the Media Source is gone" if there else "there was no Media Source of fauve's")
