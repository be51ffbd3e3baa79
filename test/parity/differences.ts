/** The differences on record: the generated part of docs/differences.md, written and read. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from '../helpers/paths.ts';
import type { Kind } from '../helpers/server.ts';

export interface Difference {
  readonly topic: string;
  readonly name: string;
  readonly nunicorn: string;
  readonly gunicorn: string;
  readonly why: string;
  readonly transcripts: Readonly<Record<Kind, readonly string[]>>;
}

/** Where a recording run leaves its differences, one file each. */
export const RECORDS = join(ROOT, '.test', 'parity');
const DOCUMENT = join(ROOT, 'docs', 'differences.md');
const BEGIN = '<!-- From here on written by `npm run parity -- record`; the tests compare with it. -->';
const TABLE_HEAD = '| Scenario | nunicorn | Gunicorn | Why |\n| --- | --- | --- | --- |';
const TOPIC = /^## What differs: (.+)\n\n\| Scenario .*\n.*\n((?:\|.*\n)*)/gm;
const ROW = /^\| \[(.*?)\]\(#[^)]*\) \| (.*?) \| (.*?) \| (.*?) \|$/gm;
const ENTRY = /^### (.+?): (.+)\n\nGunicorn:\n\n```text\n([\s\S]*?)```\n\nnunicorn:\n\n```text\n([\s\S]*?)```$/gm;

function block(lines: readonly string[]): string {
  return `\`\`\`text\n${lines.map((line) => `${line}\n`).join('')}\`\`\``;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

function plain(text: string | undefined): string {
  return (text ?? '').replaceAll('\\|', '|');
}

function linesOf(text: string | undefined): string[] {
  return text === undefined || text === '' ? [] : text.slice(0, -1).split('\n');
}

/** The anchor that a heading gets. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');
}

export function writeDifferences(differences: readonly Difference[]): string {
  const topics = [...new Set(differences.map(({ topic }) => topic))];
  const tables = topics.map((wanted) => {
    const rows = differences
      .filter(({ topic }) => topic === wanted)
      .map(
        ({ topic, name, nunicorn, gunicorn, why }) =>
          `| [${cell(name)}](#${anchor(`${topic}: ${name}`)}) | ${cell(nunicorn)} | ${cell(gunicorn)} | ${cell(why)} |`,
      );
    return `## What differs: ${wanted}\n\n${[TABLE_HEAD, ...rows].join('\n')}`;
  });
  const entries = differences.map(
    ({ topic, name, transcripts }) =>
      `### ${topic}: ${name}\n\nGunicorn:\n\n${block(transcripts.gunicorn)}\n\nnunicorn:\n\n${block(transcripts.nunicorn)}`,
  );
  const intro =
    'What a client or an operator sees in each of these scenarios, with times, pids, ports and names made equal.';
  return `${[BEGIN, ...tables, '## Transcripts', intro, ...entries].join('\n\n')}\n`;
}

/** By `topic: name`. */
export function readDifferences(document: string): ReadonlyMap<string, Difference> {
  const transcripts = new Map(
    [...document.matchAll(ENTRY)].map(
      ([, topic, name, theirs, ours]) =>
        [`${topic}: ${name}`, { gunicorn: linesOf(theirs), nunicorn: linesOf(ours) }] as const,
    ),
  );
  const found = new Map<string, Difference>();
  for (const [, topic = '', rows = ''] of document.matchAll(TOPIC)) {
    for (const [, label, nunicorn, gunicorn, why] of rows.matchAll(ROW)) {
      const name = plain(label);
      found.set(`${topic}: ${name}`, {
        topic,
        name,
        nunicorn: plain(nunicorn),
        gunicorn: plain(gunicorn),
        why: plain(why),
        transcripts: transcripts.get(`${topic}: ${name}`) ?? { gunicorn: [], nunicorn: [] },
      });
    }
  }
  return found;
}

/** Puts what a recording run has found into the document. `all`: what it has not found is gone. */
function record(all: boolean): void {
  const document = readFileSync(DOCUMENT, 'utf8');
  const differences = new Map(all ? [] : readDifferences(document));
  for (const file of readdirSync(RECORDS)) {
    const found = JSON.parse(readFileSync(join(RECORDS, file), 'utf8')) as Difference;
    differences.set(`${found.topic}: ${found.name}`, found);
  }
  const sorted = [...differences.values()].toSorted(
    (a, b) => a.topic.localeCompare(b.topic) || a.name.localeCompare(b.name),
  );
  const [before = ''] = document.split(BEGIN);
  writeFileSync(DOCUMENT, before + writeDifferences(sorted));
  rmSync(RECORDS, { recursive: true });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) record(process.argv[2] === 'all');
