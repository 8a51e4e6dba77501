#!/usr/bin/env bash
# The wheel as a user gets it: built, installed outside the checkout over the dependencies of the given Python, complete,
# and able to go from pictures to a page. usage: scripts/check_wheel.sh [PYTHON]; leaves the wheel in dist/.
set -euo pipefail
python=$(cd "$(dirname "${1:-.venv/bin/python}")" && pwd)/$(basename "${1:-.venv/bin/python}")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
wheel=$(ls -t dist/dapg-*.whl | head -1)
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/site" "$wheel"

missing=$(comm -23 <(cd src && find dapg -name __pycache__ -prune -o -type f -print | sort) <(cd "$work/site" && find dapg -type f | sort))
[ -z "$missing" ] || { echo "not in the wheel: $missing" >&2; exit 1; }

cd "$work"
export PYTHONPATH="$work/site" OMP_NUM_THREADS=1 TQDM_DISABLE=1
"$python" -c "import dapg; assert dapg.__file__.startswith('$work/site'), dapg.__file__"
dapg=("$python" "$work/site/bin/dapg")
"${dapg[@]}" --version
"${dapg[@]}" --help > /dev/null
"${dapg[@]}" pretrain simclr --preset demo --train.steps 2 --data.subset 64 --loader.workers 0 --out stage-1
"${dapg[@]}" finetune agw --preset demo --train.steps 2 --loader.workers 0 --init stage-1 --out agw
"${dapg[@]}" evaluate agw --mode indoor --workers 0 --out scores
"${dapg[@]}" report stage-1 agw scores --out report.html
test -s report.html
echo "$wheel works"
