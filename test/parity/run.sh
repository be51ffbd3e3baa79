#!/usr/bin/env bash
# The comparison with gunicorn alone, as part of `npm test` or for itself.
#
#   npm run parity                    all topics
#   npm run parity -- signals         the topics whose file name contains one of the words
#   npm run parity -- record          all topics, and write what differs into docs/differences.md
#   npm run parity -- record signals  those topics; what is written of others stays
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -x .test/venv/bin/gunicorn ] || { echo 'test/parity/run.sh: run npm test once, it installs gunicorn' >&2; exit 1; }
npm run --silent build
record=
if [ "${1:-}" = record ]; then record=1; shift; fi
files=()
for file in dist/test/parity/*.test.js; do
  [ -e "test/parity/$(basename "${file%.js}").ts" ] || continue
  if [ $# -eq 0 ]; then files+=("$file"); continue; fi
  for word in "$@"; do case "$(basename "$file")" in *"$word"*) files+=("$file"); break ;; esac; done
done
[ ${#files[@]} -gt 0 ] || { echo "test/parity/run.sh: no topic matches: $*" >&2; exit 1; }
if [ -n "$record" ]; then
  rm -rf .test/parity
  NUNICORN_PARITY_RECORD=1 node --test --test-concurrency=2 --test-timeout=300000 --test-reporter=dot "${files[@]}"
  if [ $# -eq 0 ]; then exec node dist/test/parity/differences.js all; fi
  exec node dist/test/parity/differences.js
fi
exec node --test --test-concurrency=2 --test-timeout=300000 --test-reporter=spec "${files[@]}"
