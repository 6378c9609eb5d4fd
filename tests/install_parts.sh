#!/usr/bin/env bash
# The real programs that some tests talk to: an RTMP server, an SRT relay, OBS on a virtual screen, a browser, a
# sound server.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends \
  chromium chromium-driver gcc libasound2-plugins libc6-dev libgl1-mesa-dri libnginx-mod-rtmp libportaudio2 \
  nginx-light obs-studio pulseaudio pulseaudio-utils srt-tools xauth xvfb
"$(dirname "$0")/install_bindings.sh"
