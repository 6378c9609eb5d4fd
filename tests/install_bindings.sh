#!/usr/bin/env bash
# NVIDIA's Python bindings, to compare names with: they install without a GPU, and import over stubs of the
# libraries that they bind. About 60 MB, kept in FAUVE_PARTS (~/.cache/fauve-parts) and fetched once.
set -euo pipefail
parts="${FAUVE_PARTS:-$HOME/.cache/fauve-parts}/nvidia"
python="${PYTHON:-python3}"
complete="$parts/$("$python" -c 'import sys; print(sys.implementation.cache_tag)')-$(cksum <"$0" | cut -d' ' -f1)"
if [ -e "$complete" ]; then exit 0; fi
rm -rf "$parts"
mkdir -p "$parts/stubs"
tools="$(mktemp -d)"
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
pip() { "$tools/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
into() { pip install --no-deps --target "$parts/$1" "${@:2}"; }
into tensorrt-10 tensorrt-cu13-bindings==10.13.2.6
into tensorrt-11 tensorrt-cu13-bindings==11.4.0.106
into lean tensorrt-lean-cu13-bindings==11.4.0.106 tensorrt-lean-cu13-libs==11.4.0.106
into cuda cuda-bindings==13.5.0 cuda-pathfinder==1.9.0
# pycuda is built by who installs it; its source says what it binds.
pip install --upgrade setuptools
pip download --no-deps --no-build-isolation --no-binary pycuda --dest "$tools" pycuda==2026.1
tar -xzf "$tools"/pycuda-*.tar.gz -C "$parts"
for name in createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL \
  createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getBuilderPluginRegistry \
  getNvOnnxParserVersion getPluginRegistry initLibNvInferPlugins; do
  echo "void *$name(void) { return 0; }"
done >"$tools/stubs.c"
for library in libnvinfer libnvinfer_plugin libnvonnxparser; do
  for version in 10 11; do
    gcc -shared -fPIC -o "$parts/stubs/$library.so.$version" "$tools/stubs.c"
  done
done
touch "$complete"
