"""`fauve doctor`: what is installed, what runs, and why the rest does not."""

import json
import os
import platform
from dataclasses import asdict
from typing import Any

import click

import engines
from engines.cpu import cpu_name, instruction_sets
from engines.parity import version
from pipeline.commands.options import PRECISION, onnx_options

PACKAGES = (
    "fauve",
    "numpy",
    "av",
    "opencv-python-headless",
    "openvino",
    "onnxruntime",
    "onnx",
    "torch",
    "torchvision",
    "tensorrt",
    "pycuda",
    "cuda-bindings",
)


def versions() -> dict[str, str]:
    """Version of each of `PACKAGES`, "" for one that is not installed, and of FFmpeg's libraries."""
    from av import library_versions

    found = {package: version(package) for package in PACKAGES}
    for part, numbers in library_versions.items():
        found[part] = ".".join(map(str, numbers))
    return found


@click.command()
@click.option(
    "-s", "--style", default="pointillism", show_default=True, help="The style to paint the trial with."
)
@click.option("--engine", help="Try only this engine; the exit code is 0 if it runs, and 1 if not.")
@click.option(
    "--precision",
    type=PRECISION,
    default="auto",
    show_default=True,
    help="The precision that the engines must run in.",
)
@onnx_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(
    context: click.Context,
    style: str,
    engine: str | None,
    precision: str,
    layout: Any,
    value_range: Any,
    as_json: bool,
) -> None:
    """Tell which engines run here, in which precision and on which device, and why the others do not.

    An engine runs when it paints what the reference paints: the style's golden picture, and built-in frames.
    They are compared now, whatever earlier runs remember. The exit code is 0 if one runs.
    """
    pack = engines.load_style(style, layout=layout, value_range=value_range)
    probes = [engines.probe(name, pack, precision) for name in ([engine] if engine else engines.NAMES)]
    machine = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "instruction_sets": instruction_sets(),
    }
    running = [probe.name for probe in probes if probe.runs]
    if as_json:
        report = {"machine": machine, "versions": versions(), "engines": [asdict(probe) for probe in probes]}
        click.echo(json.dumps(report, indent=2))
    else:
        for key, value in machine.items():
            text = ", ".join(value) if isinstance(value, list) else value
            click.echo(f"{key.replace('_', ' '):<17}{text}")
        click.echo()
        for package, installed in versions().items():
            click.echo(f"{package:<25}{installed or 'not installed'}")
        click.echo()
        for probe in probes:
            how = f"{probe.precision} on {probe.device}, {probe.difference}" if probe.runs else probe.reason
            click.echo(f"{'runs' if probe.runs else 'no  '}  {probe.name:<20}{how}")
        taken = [name for name in engines.preferred() if name in running]
        if not engine:
            click.echo(f"\nauto takes {taken[0]}" if taken else "\nno engine runs here")
    context.exit(0 if running else 1)
