// docs/differences.md: each row of its first half names a scenario that was run against both servers, and tests that exist.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../helpers/paths.ts';
import { readDifferences } from '../parity/differences.ts';

const DOCUMENT = readFileSync(join(ROOT, 'docs', 'differences.md'), 'utf8');
const [WRITTEN = ''] = DOCUMENT.split('<!-- From here on written');
const FOLDERS = ['unit', 'integration', 'parity', 'python'] as const;

/** The source of each test file, by its name without folder and ending. */
const sources = new Map<string, string>();
for (const folder of FOLDERS) {
  for (const file of readdirSync(join(ROOT, 'test', folder))) {
    const name = file.replace(/\.test\.ts$|\.py$/, '');
    sources.set(name, (sources.get(name) ?? '') + readFileSync(join(ROOT, 'test', folder, file), 'utf8'));
  }
}

const rows = WRITTEN.split('\n').filter((line) => line.startsWith('| ') && !/^\| (nunicorn|-+) +\|/.test(line));

function cells(row: string): string[] {
  return row
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim());
}

test('each difference names what shows it', () => {
  assert.ok(rows.length > 40);
  for (const row of rows) {
    const all = cells(row);
    assert.equal(all.length, 4, `four cells are needed: ${row}`);
    assert.match(all[3] ?? '', /^(`[\w -]+: [^`]+`(, )?)+$/, `the last cell names tests: ${row}`);
  }
});

test('each row names a scenario that was run against both servers', () => {
  const scenarios = readDifferences(DOCUMENT);
  for (const row of rows) {
    const names = [...(cells(row)[3] ?? '').matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
    assert.ok(
      names.some((name) => scenarios.has(name)),
      `none of them is in the second half: ${row}`,
    );
  }
});

/** In tables and between them. */
function named(): readonly string[] {
  const inTables = rows.flatMap((row) => [...(cells(row)[3] ?? '').matchAll(/`([^`]+)`/g)]);
  const between = WRITTEN.split('\n').filter((line) => !line.startsWith('|'));
  const prose = between.join(' ').matchAll(/\(`([\w-]+: [^`]+)`\)/g);
  return [...inTables, ...prose].map(([, name = '']) => name);
}

test('the tests that are named exist', () => {
  const scenarios = readDifferences(DOCUMENT);
  const all = named();
  assert.ok(all.length > rows.length);
  for (const name of all) {
    if (scenarios.has(name)) continue;
    const [, file = '', title = ''] = /^([\w-]+): (.+)$/.exec(name) ?? [];
    const source = sources.get(file);
    assert.ok(source !== undefined, `there is no test file ${file}: ${name}`);
    // Names made by a loop are named by their beginning.
    const quoted = source.includes(`'${title}`) || source.includes(`\`${title}`) || source.includes(`"${title}`);
    assert.ok(quoted || source.includes(`def ${title}(`), `${file} has no test '${title}'`);
  }
});
