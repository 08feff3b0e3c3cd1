#!/usr/bin/env bash
# Create .venv and install the project with pinned versions: tools/install.sh EXTRA
#
# Uses uv if it is on the PATH (faster), otherwise pip. The pins apply to builds, too: natten's source distribution needs
# torch when it is built and would otherwise download the newest one.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-demo}
python=${PYTHON:-python3}

fail() {
  printf 'install: %s\n' "$*" >&2
  exit 1
}

command -v "$python" >/dev/null || fail "no $python on the PATH; install Python 3.11 or newer, or set PYTHON=/path/to/python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old; Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"
compiler=
for candidate in "${CC:-}" cc gcc clang; do
  if [ -n "$candidate" ] && command -v "$candidate" >/dev/null; then compiler=$candidate; break; fi
done
[ -n "$compiler" ] ||
  fail "no C compiler (looked for \$CC, cc, gcc, clang): natten and deepspeed are built here. Install one (Debian, Ubuntu: apt-get install build-essential; Fedora: dnf install gcc gcc-c++; macOS: xcode-select --install) and run make again"

stamp=.venv/.installed-$extra
fingerprint=$(cat pyproject.toml constraints.txt tests/oracles.txt tools/install.sh | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ]; then
  echo "install: .venv is up to date ($extra)"
  exit 0
fi

started=$SECONDS
if command -v uv >/dev/null; then
  [ -d .venv ] || uv venv --quiet --python "$python" .venv
  install() { VIRTUAL_ENV=$PWD/.venv uv pip install --quiet "$@"; }
  pins=(--constraints constraints.txt --build-constraints constraints.txt)
else
  [ -x .venv/bin/python ] || "$python" -m venv .venv ||
    fail "python's venv module does not work; install it (Debian, Ubuntu: apt-get install python3-venv)"
  export PIP_CONSTRAINT=$PWD/constraints.txt PIP_BUILD_CONSTRAINT=$PWD/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1
  # without --no-compile half of the time goes into modules that are never imported
  install() { .venv/bin/python -m pip install --quiet --no-compile "$@"; }
  pins=()
fi
index=()
[ -z "${TORCH_INDEX:-}" ] || index=(--extra-index-url "$TORCH_INDEX")

echo "install: torch, deepspeed, natten and the rest into .venv (a few minutes on a first run)"
install "${pins[@]}" "${index[@]}" -e ".[$extra]"
case $extra in test | dev) install --no-deps -r tests/oracles.txt ;; esac
printf '%s' "$fingerprint" >"$stamp"
echo "install: done in $((SECONDS - started)) s"
