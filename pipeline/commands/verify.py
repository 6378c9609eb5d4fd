"""`fauve verify`: whether a painted file keeps what was promised."""

import json
from pathlib import Path

import click

from pipeline.commands.options import PATH, told_frames
from pipeline.verify import differences, read_contents


@click.command()
@click.argument("video", type=PATH)
@click.argument("painted", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(context: click.Context, video: Path, painted: Path, as_json: bool) -> None:
    """Compare PAINTED with the VIDEO that it was made of, from the two files alone.

    Frames and their times, the end, size and shape, colour tags, sound packet for packet, subtitles,
    chapters and title. Prints each difference; the exit code is 1 if there is one.
    """
    source, output = read_contents(video), read_contents(painted)
    found = differences(source, output)
    if as_json:
        click.echo(json.dumps({"frames": len(output.times), "differences": found}))
    else:
        for line in found:
            click.echo(line)
        if not found:
            click.echo(f"{painted}: {told_frames(len(output.times))}, nothing differs")
    context.exit(1 if found else 0)
