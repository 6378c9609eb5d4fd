"""Real parts that some tests need: skipped where one is missing, an error when FAUVE_FAIL_WITHOUT_PARTS=1.

`tests/install_parts.sh` installs them on Debian, `tests/install_bindings.sh` the bindings anywhere on Linux.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

BINDINGS = Path(os.environ.get("FAUVE_PARTS") or Path.home() / ".cache/fauve-parts") / "nvidia"
"""Where `tests/install_bindings.sh` puts NVIDIA's Python bindings."""

RTMP_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")


def needs(*programs: str) -> pytest.MarkDecorator:
    """A mark for tests that need `programs` on the path."""
    missing = [name for name in programs if shutil.which(name) is None]
    if "nginx" in programs and not RTMP_MODULE.exists():
        missing.append("nginx's RTMP module")
    return _needed(missing, "tests/install_parts.sh")


def chromium(size: tuple[int, int] = (1200, 800)) -> Any:
    """A headless Chromium, driven by selenium, whose page has `size` pixels; whoever takes it quits it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    metrics = {"width": size[0], "height": size[1], "pixelRatio": 1, "touch": False}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


def needs_bindings() -> pytest.MarkDecorator:
    """A mark for tests that need NVIDIA's Python bindings."""
    complete = any(BINDINGS.glob(f"{sys.implementation.cache_tag}-*"))
    return _needed([] if complete else ["NVIDIA bindings"], "tests/install_bindings.sh")


def _needed(missing: list[str], script: str) -> pytest.MarkDecorator:
    if missing and os.environ.get("FAUVE_FAIL_WITHOUT_PARTS") == "1":
        pytest.exit(f"FAUVE_FAIL_WITHOUT_PARTS=1, and there is no {', '.join(missing)} here", returncode=1)
    reason = f"no {', '.join(missing)} here; {script} installs it"
    return pytest.mark.skipif(bool(missing), reason=reason)
