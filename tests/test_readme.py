"""README and docs are true: their numbers are the measured ones, their files exist, their commands parse."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import engines as rates
from benchmarks import latency, quality
from benchmarks.throughput import table
from engines import Style, bundled

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def test_the_rates_are_the_measured_ones():
    report = json.loads((ROOT / "benchmarks/results/throughput.json").read_text("utf-8"))
    assert f"<!-- throughput -->\n{table(report)}\n<!-- /throughput -->" in README


def test_the_latencies_are_the_measured_ones():
    report = json.loads((ROOT / "benchmarks/results/latency.json").read_text("utf-8"))
    assert f"<!-- latency -->\n{latency.table(report)}\n<!-- /latency -->" in README


def test_the_flicker_is_the_measured_one():
    report = json.loads((ROOT / "benchmarks/results/flicker.json").read_text("utf-8"))
    levels = report["styles"]["live/pointillism"]
    text = README.replace("\n", " ")
    assert (
        f"{levels['painting']} grey levels of 255 where the video itself changes by {levels['video']}" in text
    )
    steady, ms = levels["steady"]["0.75"], levels["ms"]
    assert f"With `--steady 0.75` it changes by {steady['painting']} grey levels" in text
    assert (
        f"takes one core {ms['steady']:.0f} ms a frame, where painting takes both {ms['painting']:.0f}"
        in text
    )


def test_the_qualities_are_the_measured_ones():
    report = json.loads((ROOT / "benchmarks/results/quality.json").read_text("utf-8"))
    numbers = (ROOT / "docs/numbers.md").read_text("utf-8")
    assert f"<!-- quality -->\n{quality.table(report)}\n<!-- /quality -->" in numbers


def test_the_times_of_engines_are_the_measured_ones():
    report = json.loads((ROOT / "benchmarks/results/engines.json").read_text("utf-8"))
    text = (ROOT / "docs/engines.md").read_text("utf-8")
    assert f"<!-- engines -->\n{rates.table(report)}\n<!-- /engines -->" in text


def test_every_style_is_listed_with_its_painting():
    for name in bundled():
        style = Style.load(name)
        for credit in style.credits:
            assert f"| `{credit.name}` | {credit.artist}, *{credit.title}*, {credit.year} |" in README
        assert f"the height it was made for, {style.native_height} lines," in README.replace("\n", " ")


def anchor(heading: str) -> str:
    """What a link to `heading` ends in, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


LINKS = sorted({(path, link) for path, text in DOCS.items() for link in re.findall(r"\]\(([^):]+)\)", text)})


@pytest.mark.parametrize(("path", "link"), LINKS, ids=[f"{path.name}:{link}" for path, link in LINKS])
def test_what_they_link_to_is_there(path, link):
    name, _, place = link.partition("#")
    target = path.parent / name if name else path
    assert target.exists()
    if place:
        assert place in [
            anchor(title) for title in re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
        ]


BLOCKS = "".join(block for text in DOCS.values() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
COMMANDS = sorted(set(re.findall(r"^(fauve [^#\n]*)|\| (fauve [^#|\n]*)", BLOCKS, re.MULTILINE)))


@pytest.mark.parametrize("line", sorted({one or other for one, other in COMMANDS}))
def test_their_commands_have_the_options_that_they_use(line):
    verb, *arguments = shlex.split(line)[1:]
    verbs = [verb, arguments.pop(0)] if verb in ("obs", "engine") else [verb]
    usage = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *verbs, "--help"], capture_output=True, text=True, timeout=60
    )
    assert usage.returncode == 0, usage.stderr
    for option in (argument for argument in arguments if re.match(r"--?[a-z]", argument)):
        assert re.search(rf"(^|\s|,|/){re.escape(option)}\b", usage.stdout), option


@pytest.mark.parametrize(
    "module", sorted(set(re.findall(r"python -m (benchmarks\.\w+)", "".join(DOCS.values()))))
)
def test_the_benchmarks_that_they_name_are_there(module):
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_makes_an_environment_that_came_without_pip_again(tmp_path):
    """As Debian's does before `apt install python3-venv`."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    made = subprocess.run(
        ["make", "--dry-run", "demo", f"VENV={venv}", f"PYTHON={sys.executable}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert f"{sys.executable} -m venv {venv}\n" in made.stdout
