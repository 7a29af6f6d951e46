#!/bin/sh
# Runs every fuzz test for the given time, one after the other.
set -eu
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh TIME}
grep -roE --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]+' . | while IFS=: read -r file name; do
	name=${name#func }
	echo "Fuzzing $name in $(dirname "$file") for $time."
	# Making each new input small may take a minute by default, in which nothing else is tried.
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 2s "$(dirname "$file")"
done
