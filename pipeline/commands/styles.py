"""`fauve styles`: what comes with fauve, and whose paintings it learned from."""

import dataclasses
import json
from pathlib import Path

import click

from engines import Style, bundled


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def styles(as_json: bool) -> None:
    """List the bundled styles and the paintings they come from."""
    packs = [Style.load(name) for name in bundled()]
    if as_json:
        keys = ("name", "title", "native_height", "license", "recipe")
        table = [
            {key: getattr(pack, key) for key in keys}
            | {"styles": [dataclasses.asdict(credit) for credit in pack.credits], "card": dict(pack.card)}
            for pack in packs
        ]
        click.echo(json.dumps(table, indent=2, ensure_ascii=False))
        return
    for pack in packs:
        click.echo(f"{pack.name}  ({pack.title}, {pack.license}, native height {pack.native_height})")
        for credit in pack.credits:
            click.echo(f"    {credit.name}: {credit.artist}, {credit.title}, {credit.year} ({credit.rights})")
            for other in credit.others:
                click.echo(f"        and {_told(other)}")


def _told(name: str) -> str:
    """What the name of a painting's file tells: artist, title and year of artist_the-title_1913.jpg."""
    parts = Path(name).stem.split("_")
    if len(parts) != 3 or not parts[2].isdecimal():
        return name
    artist, title, year = parts
    return f"{artist.title()}, {title.replace('-', ' ').title()}, {year}"
