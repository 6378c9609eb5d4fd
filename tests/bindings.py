"""What NVIDIA's real bindings have, as `test_tensorrt.py` asks in a process of its own.

python -m tests.bindings tensorrt_bindings < names.json     # {"Builder": ["create_network", ...], ...}
python -m tests.bindings --refused tensorrt_bindings        # why the engine says that there is no builder
"""

import importlib
import json
import os
import re
import sys
from types import ModuleType

import engines.cuda
from engines import EngineUnavailable

SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*?)\)(?: ->.*)?$", re.MULTILINE)

PARAMETER = re.compile(r"(?:^|, )(?:[\w ]+ )?(\w+)(?=: |,|$| =)")


def signatures(thing):
    """Names of the parameters of each overload, and how many of them there must be."""
    found = []
    for name, parameters in SIGNATURE.findall(thing.__doc__ or ""):
        if name == thing.__name__ and parameters != "*args, **kwargs":
            names = [name for name in PARAMETER.findall(parameters) if name != "self"]
            optional = parameters.count(" = ")
            found.append((names, len(names) - optional))
    return found


def described(module, names):
    """For each of `names` its signatures, None for what is missing."""
    classes = {}
    for name, members in names.items():
        thing = getattr(module, name, None)
        entry = {member: _of(thing, member) for member in members}
        classes[name] = None if thing is None else entry | {"": signatures(thing)}
    return classes


def _of(thing, member):
    for part in member.split("."):
        thing = getattr(thing, part, None)
    return None if thing is None else signatures(thing) if callable(thing) else []


def refused(tensorrt):
    """Why the engine, over `tensorrt`, says that it cannot start; pycuda and CUDA's driver are empty."""
    pycuda, cuda, bindings = ModuleType("pycuda"), ModuleType("cuda"), ModuleType("cuda.bindings")
    pycuda.driver = bindings.driver = ModuleType("driver")
    sys.modules.update({"tensorrt": tensorrt, "pycuda": pycuda, "cuda": cuda, "cuda.bindings": bindings})
    engines.cuda.gpus = lambda: 1
    if not hasattr(tensorrt, "IProgressMonitor"):  # the lean runtime builds nothing
        tensorrt.IProgressMonitor = object
    import engines.tensorrt as engine

    progress = engine.Progress(lambda done, left: None)
    progress.phase_start("Building", None, 2)
    assert progress.step_complete("Building", 0) is True
    progress.phase_finish("Building")
    messages = engine.Messages()
    try:
        made = engine._made(getattr(tensorrt, "Builder", tensorrt.Runtime), messages)
    except EngineUnavailable as error:
        return str(error)
    # Without a driver the lean runtime is made, but cannot be used, nor taken down: it crashes.
    print(messages.reason(), flush=True)
    os._exit(0 if made else 1)


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[-1])
    if sys.argv[1] == "--refused":
        print(refused(module))
    else:
        print(json.dumps(described(module, json.load(sys.stdin))))
