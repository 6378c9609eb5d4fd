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

    Each machine needs fauve and the video under the same path; the result is written here. Its frames are
    the same as if it had been painted here: machines with another engine, precision or instruction set are
    refused. If a machine dies, the others repaint its part.
    """
    with Farm(address, threads=options["threads"], mixed=mixed) as cluster:
        context.invoke(run, farm=cluster, workers=1, jobs=1, preview=None, **options)


command = click.Command(
    "farm",
    params=[
        click.Option(["--address"], help="HOST:PORT of the cluster (default: the one that runs here)."),
        click.Option(["--mixed"], is_flag=True, help="Accept machines whose pictures may differ."),
        *(param for param in run.params if param.name not in NOT_HERE),
    ],
    callback=farm,
    help=farm.__doc__,
)
