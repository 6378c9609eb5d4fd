"""`fauve farm`: one video painted by the machines of a Ray cluster."""

from typing import Any

import click

from pipeline.commands.run import run
from pipeline.farm import Farm

NOT_HERE = ("workers", "jobs", "preview")
"""Options of `fauve run` that divide or show the work of one machine."""


@click.pass_context
def farm(context: click.Context, /, address: str | None, mixed: bool, **options: Any) -> None:
    """Paint VIDEOS on a Ray cluster: one that `ray start` has made, or the cores of this machine.

    Each machine needs fauve and the video under the same path; the result is made here. It has the same
    frames as one that was painted here, if the machines have the same engine, precision and instruction
    sets; others are refused. A machine that dies is done without, and its part painted again.
    """
    with Farm(address, threads=options["threads"], mixed=mixed) as cluster:
        context.invoke(run, farm=cluster, workers=1, jobs=1, preview=None, **options)


command = click.Command(
    "farm",
    params=[
        click.Option(["--address"], help="Of the cluster, HOST:PORT; the one that runs here if not given."),
        click.Option(["--mixed"], is_flag=True, help="Take machines whose pictures may differ."),
        *(param for param in run.params if param.name not in NOT_HERE),
    ],
    callback=farm,
    help=farm.__doc__,
)
