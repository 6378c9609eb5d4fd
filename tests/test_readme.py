"""The README is true: its numbers are the measured ones, its files exist, its commands parse."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import latency, quality
from benchmarks.throughput import table
from engines import Style, bundled

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_rates_are_the_measured_ones():
    report = json.loads((ROOT / "benchmarks/results/throughput.json").read_text("utf-8"))
    assert f"<!-- throughput -->\n{table(report)}\n<!-- /throughput -->" in README


def test_the_latencies_are_the_measured_ones():
    report = json.loads((ROOT / "benchmarks/results/latency.json").read_text("utf-8"))
    assert f"<!-- latency -->\n{latency.table(report)}\n<!-- /latency -->" in README


def test_the_flicker_is_the_measured_one():
    report = json.loads((ROOT / "benchmarks/results/flicker.json").read_text("utf-8"))
    levels = report["styles"]["live/pointillism"]
    assert f"{levels['painting']} grey levels of 255 where the video itself changes by {levels['video']}" in (
        README.replace("\n", " ")
    )


def test_the_qualities_are_the_measured_ones():
    report = json.loads((ROOT / "benchmarks/results/quality.json").read_text("utf-8"))
    assert f"<!-- quality -->\n{quality.table(report)}\n<!-- /quality -->" in README


def test_every_style_is_listed_with_its_painting():
    for name in bundled():
        style = Style.load(name)
        for credit in style.credits:
            painting = f"{credit.artist}, *{credit.title}*, {credit.year}"
            row = f"| `{credit.name}` | {painting} | {style.native_height} lines |"
            assert row in README


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_it_links_to_is_there(path):
    assert (ROOT / path).exists()


BLOCKS = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^(fauve [^#\n]*)", BLOCKS, re.MULTILINE))))
def test_its_commands_have_the_options_that_it_uses(line):
    verb, *arguments = shlex.split(line)[1:]
    usage = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", verb, "--help"], capture_output=True, text=True, timeout=60
    )
    assert usage.returncode == 0, usage.stderr
    for option in (argument for argument in arguments if argument.startswith("-")):
        assert re.search(rf"(^|\s|,){re.escape(option)}\b", usage.stdout), option
