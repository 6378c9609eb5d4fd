"""`fauve doctor`: what is installed, what runs, and why the rest does not."""

import json
import os
import platform
from dataclasses import asdict
from importlib import metadata

import click

import engines
from engines.cpu import cpu_name, instruction_sets
from engines.style import Style

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

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    for part, version in library_versions.items():
        found[part] = ".".join(map(str, version))
    return found


@click.command()
@click.option("--style", default="pointillism", show_default=True, help="The style to paint the trial with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, style: str, as_json: bool) -> None:
    """Tell which engines run here, and why the others do not.

    An engine runs when it paints the style's golden picture as the reference did. The exit code is 0 if one
    does.
    """
    pack = Style.load(style)
    probes = [engines.probe(name, pack) for name in engines.NAMES]
    machine = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "instruction_sets": instruction_sets(),
    }
    runs = any(probe.runs for probe in probes)
    if as_json:
        report = {"machine": machine, "versions": versions(), "engines": [asdict(probe) for probe in probes]}
        click.echo(json.dumps(report, indent=2))
    else:
        for key, value in machine.items():
            text = ", ".join(value) if isinstance(value, list) else value
            click.echo(f"{key.replace('_', ' '):<17}{text}")
        click.echo()
        for package, version in versions().items():
            click.echo(f"{package:<25}{version or 'not installed'}")
        click.echo()
        for probe in probes:
            how = f"{probe.precision} on {probe.device}" if probe.runs else probe.reason
            click.echo(f"{'runs' if probe.runs else 'no  '}  {probe.name:<20}{how}")
        chosen = next(
            (name for name in engines.preferred() if any(p.runs and p.name == name for p in probes)), ""
        )
        click.echo(f"\nauto takes {chosen}" if chosen else "\nno engine runs here")
    context.exit(0 if runs else 1)
