"""Real programs that some tests need: skipped where one is missing, an error when FAUVE_FAIL_WITHOUT_PARTS=1.

`tests/install_parts.sh` installs them on Debian.
"""

import os
import shutil
from pathlib import Path

import pytest

RTMP_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")


def needs(*programs: str) -> pytest.MarkDecorator:
    """A mark for tests that need `programs` on the path."""
    missing = [name for name in programs if shutil.which(name) is None]
    if "nginx" in programs and not RTMP_MODULE.exists():
        missing.append("nginx's RTMP module")
    if missing and os.environ.get("FAUVE_FAIL_WITHOUT_PARTS") == "1":
        pytest.exit(f"FAUVE_FAIL_WITHOUT_PARTS=1, and there is no {', '.join(missing)} here", returncode=1)
    reason = f"no {', '.join(missing)} here; tests/install_parts.sh installs it"
    return pytest.mark.skipif(bool(missing), reason=reason)
