"""`fauve engine`: build what TensorRT runs ahead of time, list it, remove it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

import engines
from engines import Size
from engines.plan_cache import PlanCache
from pipeline.commands.options import Dimensions, onnx_options
from pipeline.progress import say


@click.group()
def engine() -> None:
    """Plans: styles that TensorRT has compiled for the GPU of this machine."""


@engine.command()
@click.argument("pack")
@click.option(
    "--size",
    type=Dimensions(),
    default="1280x720",
    show_default=True,
    help="Size of the pictures that are to be painted fastest. Smaller ones need no plan of their own.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "float16", "int8"]),
    default="auto",
    show_default=True,
    help="auto is float16 if the pack has it.",
)
@onnx_options
@click.option("--json", "as_json", is_flag=True, help="Print progress and result as lines of JSON.")
def build(pack: str, size: Size, precision: str, layout: Any, value_range: Any, as_json: bool) -> None:
    """Build the plan of PACK, a style or an .onnx model, which takes a minute or more. Ctrl-C ends it."""
    style = engines.load_style(pack, layout=layout, value_range=value_range)
    from engines import tensorrt

    known = {plan.digest for plan in PlanCache().plans()}
    if as_json:
        plan = tensorrt.build(style, size, precision, tell=_say)
        say({"event": "done", "digest": plan.digest, **asdict(plan)})
        return
    if sys.stderr.isatty():
        with shown(style.name) as tell:
            plan = tensorrt.build(style, size, precision, tell=tell)
    else:
        plan = tensorrt.build(style, size, precision, tell=tensorrt.Said())
    how = "is there already" if plan.digest in known else f"took {plan.seconds:.0f} s"
    click.echo(f"{style.name}: {plan.target.precision} plan for {plan.sizes} on {plan.target.gpu}; it {how}")


def _say(done: float, left: float | None) -> None:
    say({"event": "progress", "done": round(done, 3), "eta": left if left is None else round(left, 1)})


@contextmanager
def shown(name: str) -> Iterator[Callable[[float, float | None], None]]:
    """A bar on standard error, and what moves it."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(name, total=1.0, left="")
    with bar:
        yield lambda done, left: bar.update(
            task, completed=done, left="" if left is None else f"{left:.0f} s left"
        )


@engine.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the plans that have been built, and where they are."""
    cache = PlanCache()
    plans = cache.plans()
    if as_json:
        table = [{"digest": plan.digest, "bytes": cache.size(plan), **asdict(plan)} for plan in plans]
        click.echo(json.dumps({"folder": str(cache.folder), "plans": table}, indent=2))
        return
    for plan in plans:
        target = plan.target
        click.echo(
            f"{plan.style:<16}{target.precision:<10}best at {plan.sizes.best[0]}x{plan.sizes.best[1]}, "
            f"{plan.sizes}, {cache.size(plan) / 2**20:.1f} MiB, {target.gpu} ({target.compute_capability}), "
            f"TensorRT {target.tensorrt}"
        )
    click.echo(f"plans: {len(plans)}, in {cache.folder}")


@engine.command()
def clean() -> None:
    """Remove all plans; they are built again when they are needed."""
    cache = PlanCache()
    click.echo(f"{cache.clean() / 2**20:.1f} MiB removed from {cache.folder}")
