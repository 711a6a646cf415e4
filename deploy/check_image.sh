#!/usr/bin/env bash
# Builds the image where no container daemon runs, and uses it as its user.
#   deploy/check_image.sh DIRECTORY [options of buildah build]
# Needs root, buildah, debootstrap and the network; DIRECTORY keeps some 20 GB. The Dockerfile is
# taken as it is, but two things are replaced: its base comes from debootstrap, not from a registry,
# and its steps run in a chroot. Not tried so: tini as process 1, limits, GPUs.
# What stands in single quotes is for the shell inside.
# shellcheck disable=SC2016
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory=$(realpath -m "${1:?which directory}")
readonly directory base=docker.io/library/debian:bookworm-slim accelerator=${ACCELERATOR:-cpu}
mkdir -p "$directory"
cat >"$directory/storage.conf" <<END
[storage]
driver = "vfs"
graphroot = "$directory/graph"
runroot = "$directory/run"
END
export CONTAINERS_STORAGE_CONF=$directory/storage.conf BUILDAH_ISOLATION=chroot TMPDIR=$directory

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  debootstrap --variant=minbase bookworm "$directory/base" >"$directory/debootstrap.log"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$directory/base" /
  buildah commit --quiet --rm "$container" "$base"
fi
buildah build --pull-never --layers --format docker --file deploy/Dockerfile \
  --build-arg "ACCELERATOR=$accelerator" --tag "fljax:$accelerator" "${@:2}" .

container=$(buildah from --pull-never "localhost/fljax:$accelerator")
trap 'buildah rm "$container" >/dev/null' EXIT
inside() { buildah run --user 10001:10001 "$container" -- bash -euc "$1"; }

echo "== nothing of the user's but its folders, and nothing that compiles"
inside 'id; for name in cc gcc g++ clang ld make; do ! command -v $name; done
  ! touch /opt/fljax/new 2>/dev/null; du -sh /opt/fljax; fljax --version'
echo "== a run, ended by SIGTERM"
inside 'tini -s -- fljax run quickstart --workdir=/runs/first --resume \
    --config.num_rounds=100000 --config.baselines="()" --config.calibrate=False & run=$!
  until [ "$(cat /runs/first/metrics.jsonl 2>/dev/null | wc -l)" -gt 3 ]; do sleep 0.1; done
  kill -TERM $run; code=0; wait $run || code=$?; echo "exit code $code"; [ $code = 143 ]'
echo "== a finished one, by a line that is said twice"
for _ in 1 2; do
  inside 'tini -s -- fljax run quickstart --workdir=/runs/second --resume --config.num_rounds=30'
done
