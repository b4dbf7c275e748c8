#!/bin/sh
# The printable texts of a file (on standard input) that have at least so many characters, each with how often it is there.
set -eu
least=$1
export LC_ALL=C
tr -c '[:print:]' '\n' | grep -E "^.{$least,}\$" | sort | uniq -c | sort -k1,1nr -k2 || true
