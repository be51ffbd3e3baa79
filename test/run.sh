#!/usr/bin/env bash
# Everything that has to hold before a change is taken: build, lint, unit and integration tests.
# From a fresh clone this one command is enough; it installs what the machine lacks.
#
#   npm test                         all of it
#   npm test -- signals nginx        only the test files whose name contains one of the words
#   NUNICORN_TEST_NODE=24 npm test -- node-
#                                    with another version of Node, from its npm package
#   NUNICORN_TEST_SOAK=1 npm test    with the long and large ones
#   NUNICORN_TEST_SERVERS=gunicorn   run the shared scenarios against gunicorn only, to check the tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TIME_LIMIT_S="${NUNICORN_TEST_TIME_LIMIT_S:-1740}"
readonly VENV=.test/venv
readonly PYTHON_PACKAGES='gunicorn[http2]>=27,<28 django flask ruff prometheus_client PasteDeploy gevent'

say() { printf '== %s\n' "$*"; }
fail() { printf 'test/run.sh: %s\n' "$*" >&2; exit 1; }

install_debian_packages() {
  local missing=() sudo=()
  command -v curl >/dev/null || missing+=(curl)
  command -v ps >/dev/null || missing+=(procps)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
  command -v promtool >/dev/null || missing+=(prometheus)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v zsh >/dev/null || missing+=(zsh)
  command -v fish >/dev/null || missing+=(fish)
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  command -v apt-get >/dev/null || fail "needs ${missing[*]}; there is no apt-get here, install them by hand"
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || fail "needs ${missing[*]}; run: sudo apt-get install ${missing[*]}"
    sudo=(sudo -n)
  fi
  say "apt-get install ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  # nginx is started by the tests, never as a service of this machine.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

install_python_packages() {
  local stamp="$VENV/installed" wanted python
  wanted="$PYTHON_PACKAGES"
  if [ -x "$VENV/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  python="$(command -v "${PYTHON:-python3}")" || fail 'needs Python 3.10 or newer (python3)'
  # nunicorn runs on 3.9, Gunicorn 27 does not.
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "needs Python 3.10 or newer, $python is older"
  say "venv in $VENV"
  rm -rf "$VENV"
  mkdir -p "$(dirname "$VENV")"
  if ! "$python" -m venv "$VENV"; then
    fail "$python cannot make a venv; on Debian: apt-get install python3-venv"
  fi
  # shellcheck disable=SC2086 # a list of words
  "$VENV/bin/pip" install --quiet --disable-pip-version-check $PYTHON_PACKAGES
  printf '%s\n' "$wanted" >"$stamp"
}

# The frameworks that the tests of Node apps run.
install_node_apps() {
  local folder=.test/node-apps wanted=test/fixtures/node_apps/package.json
  if [ -d "$folder/node_modules" ] && cmp -s "$wanted" "$folder/package.json"; then return; fi
  say "npm install in $folder"
  mkdir -p "$folder"
  cp "$wanted" "$folder/package.json"
  npm install --prefix "$folder" --no-audit --no-fund --loglevel=error
}

# A real program: what `next build` makes of a small app.
build_next_app() {
  local folder=.test/node-next source=test/fixtures/node_next
  if [ -e "$folder/.next/standalone/server.js" ] && diff -qr "$source" "$folder/source" >/dev/null 2>&1; then return; fi
  say "next build in $folder"
  rm -rf "$folder"
  mkdir -p "$folder"
  cp -r "$source/." "$folder"
  npm install --prefix "$folder" --no-audit --no-fund --loglevel=error
  (cd "$folder" && NEXT_TELEMETRY_DISABLED=1 node_modules/.bin/next build >build.log 2>&1) || { cat "$folder/build.log"; fail 'next build'; }
  cp -r "$source" "$folder/source"
}

# Node VERSION as an npm package; prints where it is.
other_node() {
  local folder=".test/node-$1"
  if [ ! -x "$folder/node_modules/.bin/node" ]; then
    mkdir -p "$folder"
    npm install --prefix "$folder" --no-save --no-audit --no-fund --loglevel=error "node-$(uname -s | tr '[:upper:]' '[:lower:]')-$(node -p process.arch)@$1" >&2
    mkdir -p "$folder/node_modules/.bin"
    ln -sf "$(find "$PWD/$folder/node_modules" -path '*/bin/node' -type f | head -1)" "$folder/node_modules/.bin/node"
  fi
  printf '%s\n' "$PWD/$folder/node_modules/.bin"
}

# The compiled form of each source file that is there now; what an older build left in dist/ is not run.
compiled() {
  local source word
  for source in "$1"/*.test.ts; do
    [ -e "$source" ] || continue
    for word in "${@:2}"; do
      case "$(basename "$source")" in *"$word"*) break ;; esac
      word=''
    done
    if [ $# -gt 1 ] && [ -z "$word" ]; then continue; fi
    printf 'dist/%s\n' "${source%.ts}.js"
  done
}

[ "$(uname)" = Linux ] || fail 'the integration tests read /proc and need Linux'
if [ ! -x node_modules/.bin/tsc ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say 'npm install'
  npm install --no-audit --no-fund --loglevel=error
fi
install_debian_packages
install_python_packages
install_node_apps
build_next_app

say 'build'
npm run --silent build
# What the linters find does not keep the tests from running; it fails the run in the end.
lint_status=0
say 'biome check'
# Git's ignore file keeps the venv and dist/ out.
node_modules/.bin/biome check --error-on-warnings --vcs-enabled=true --vcs-client-kind=git --vcs-use-ignore-file=true . ||
  lint_status=1
say 'ruff check'
"$VENV/bin/ruff" check src/bridge/python || lint_status=1

mapfile -t files < <(compiled test/unit "$@"; compiled test/integration "$@"; compiled test/parity "$@")
[ ${#files[@]} -gt 0 ] || fail "no test file matches: $*"
# The limit is a last resort, for all of this together: each test has deadlines of its own.
left_s=$((TIME_LIMIT_S - SECONDS))
# Tests often wait: one more at a time than there are processors, but each has processes and ports of its own.
at_a_time=$(($(nproc) < 4 ? $(nproc) + 1 : 4))
say "node --test, ${#files[@]} files, $at_a_time at a time, at most $left_s s"
export PATH="$PATH:/usr/sbin"
if [ -n "${NUNICORN_TEST_NODE:-}" ]; then
  PATH="$(other_node "$NUNICORN_TEST_NODE"):$PATH"
  say "Node $(node --version)"
fi
test_status=0
timeout --kill-after=10 "$left_s" \
  node --test --test-concurrency="$at_a_time" --test-timeout=300000 --test-reporter=spec "${files[@]}" || test_status=$?
[ "$test_status" -ne 124 ] || fail "stopped after $TIME_LIMIT_S s in all"
[ "$lint_status" -eq 0 ] || fail 'the linters found something, see above'
exit "$test_status"
