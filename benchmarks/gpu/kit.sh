#!/usr/bin/env bash
# Unpack what lies beside this file and measure; again, it goes on with the rows that are left.
#
#     bash run.sh [ARGUMENTS of benchmarks.gpu.run]
#
# Everything is written under ~/ghost_gpu, or $GHOST_GPU.
set -euo pipefail
kit=$(cd "$(dirname "$0")" && pwd)
home=${GHOST_GPU:-$HOME/ghost_gpu}
rm -rf "$home/site" "$home/source"
mkdir -p "$home/site" "$home/source"
python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$home/site" "$kit"/wheels/*.whl
tar -xzf "$kit/source.tar.gz" -C "$home/source"
cd "$home/source"
export PYTHONPATH="$home/site:$home/source" HF_HUB_OFFLINE=1 USE_HUB_KERNELS=0
exec python3 -m benchmarks.gpu.run --results "$home/results.jsonl" --scratch "$home/scratch" "$@"
