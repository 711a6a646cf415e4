#!/usr/bin/env bash
# Writes deploy/locks/: what the image installs, each version with the hashes of its files.
#
# Versions are those of constraints.txt, by which the tests ran. cpu.txt is the whole environment;
# the files of accelerators hold what comes on top of it; build.txt is what builds packages that
# come as source, fljax among them. Needs uv (pip install uv) and the network: make lock.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly locks=deploy/locks
readonly compile=(
  uv pip compile --quiet --generate-hashes --no-header --no-annotate
  --python-version 3.11 --python-platform x86_64-manylinux_2_28
)

"${compile[@]}" pyproject.toml --constraints constraints.txt --output-file "$locks/cpu.txt"

mapfile -t in_all < <(sed -nE 's/^([A-Za-z0-9_.-]+)==.*/--no-emit-package=\1/p' "$locks/cpu.txt")
for accelerator in cuda12 cuda13; do
  "${compile[@]}" pyproject.toml --extra "$accelerator" --constraints constraints.txt \
    --constraints "$locks/cpu.txt" "${in_all[@]}" --output-file "$locks/$accelerator.txt"
done

printf '%s\n' 'hatchling>=1.27' setuptools wheel |
  "${compile[@]}" - --constraints constraints.txt --output-file "$locks/build.txt"
