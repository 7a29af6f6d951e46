#!/bin/sh
# Runs every fuzz test for the given time, one after the other.
set -eu
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh TIME}
grep -roE --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]+' . | while IFS=: read -r file name; do
	name=${name#func }
	echo "Fuzzing $name in $(dirname "$file") for $time."
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$(dirname "$file")"
done
