"""What fauve measures about itself; each module is run with `python -m` and writes its JSON to `results/`."""
