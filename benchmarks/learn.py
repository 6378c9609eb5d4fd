"""How long it takes from one painting to a finished pack: `fauve learn`, with everything that it does.

    python -m benchmarks.learn PAINTING --photos PHOTOS --clips CLIPS --weights WEIGHTS -o PACK

Writes `results/learn.json`, with the pack's own figures. Nothing else should run meanwhile.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import write_results
from engines import Style

MOST_MINUTES = 20
"""The bar, on two CPU cores."""


def main() -> None:
    """Learn, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("painting", type=Path)
    for name in ("photos", "clips", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} is there already; a pack that is gone on with is no measurement")
    options = [f"--{name}={getattr(arguments, name)}" for name in ("photos", "clips", "weights")]
    command = [sys.executable, "-m", "pipeline.cli", "learn", arguments.painting, "-o", arguments.output]
    began = time.monotonic()
    subprocess.run([*map(str, command), *options], check=True)
    minutes = (time.monotonic() - began) / 60
    card = dict(Style.load(arguments.output).card)
    log = arguments.output.with_name(arguments.output.name + ".training") / "losses.jsonl"
    steps = [json.loads(line)["seconds"] for line in log.read_text("utf-8").splitlines()]
    figures = next(iter(card["evaluation"]["styles"].values()))
    report = {
        "minutes": round(minutes, 1),
        "bar": MOST_MINUTES,
        "met": minutes <= MOST_MINUTES,
        "steps": len(steps),
        "minutes_of_steps": round(sum(steps) / 60, 1),
        "painting": arguments.painting.name,
        "style": figures,
    }
    print(f"{report['minutes']} minutes, {report['minutes_of_steps']} of them {len(steps)} steps")
    print(write_results("learn", report))


if __name__ == "__main__":
    main()
