#!/usr/bin/env bash
# Gradescope runs this as root when it builds the image: installs Rust, and builds everything that a grading needs.
# `exercise` beside this file names the exercise, and `workbook` is a handout.
set -euo pipefail
source=$(dirname "$(readlink -f "$0")")
export RUSTUP_HOME=${RUSTUP_HOME:-/usr/local/rustup} CARGO_HOME=${CARGO_HOME:-/usr/local/cargo}
export PATH=$PATH:$CARGO_HOME/bin

if ! command -v cc >/dev/null || ! command -v curl >/dev/null; then
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y build-essential ca-certificates curl
fi
if ! command -v cargo >/dev/null; then
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
    sh -s -- -y --no-modify-path --profile minimal --default-toolchain none
fi

cp -r "$source/workbook" /autograder/workbook
cd /autograder/workbook
cargo build --locked
target/debug/workbook class prepare --container --exercise "$(cat "$source/exercise")"
