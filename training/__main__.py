"""`torchrun ... -m training RECIPE ...` is `fauve train` in several processes."""

import sys

from pipeline.cli import main

# Not the command alone, of which click would print no more than "Aborted!" when it is stopped.
sys.argv.insert(1, "train")
main()
