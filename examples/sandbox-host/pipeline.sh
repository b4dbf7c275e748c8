#!/bin/sh
# What continuous integration runs for the host's repository, whatever service that is: it needs a shell and `hotcell`.
# A failing step ends it with the exit code that says why: 1 not as expected, 2 bad document, 3 a stage failed, 4 the host
# cannot do it, 5 something was not judged.
set -eu
cd "$(dirname "$0")"
out=${1:-.hotcell/ci}
mkdir -p "$out"

hotcell validate host.yaml                                            # the host document holds together
hotcell fmt host.yaml --check                                         # and is written in the usual form
hotcell plan smoke.toml --json > "$out/plan.json"                     # what a reviewer wants to see; writes nothing else
hotcell plan smoke.toml --graph svg -o "$out/plan.svg"
if [ -e hotcell.lock ]; then locked=--locked; else locked=; fi        # nothing but what was pinned
hotcell test smoke.toml $locked --require-samples --junit "$out/junit.xml"
