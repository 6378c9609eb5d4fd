"""`torchrun ... -m training RECIPE ...` is `fauve train` in several processes."""

from training.cli import train

train()
