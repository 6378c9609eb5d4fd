#!/usr/bin/env bash
# The real programs that some tests talk to: an RTMP server, an SRT relay, OBS on a virtual screen, a browser.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends \
  chromium chromium-driver gcc libc6-dev libgl1-mesa-dri libnginx-mod-rtmp nginx-light obs-studio srt-tools xauth xvfb
"$(dirname "$0")/install_bindings.sh"
