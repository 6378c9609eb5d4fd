"""`torchrun ... -m training RECIPE ...` is `fauve train` in several processes."""

import os
import sys

from pipeline.cli import main

# Not the command alone, of which click would print no more than "Aborted!" when it is stopped.
sys.argv.insert(1, "train")
main()
# All is written. While the interpreter ends, a thread by which torch's processes talk may yet crash one of
# them ("terminate called without an active exception"), which torchrun takes for a training that failed.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
