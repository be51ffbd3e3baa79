/** What a run writes: its raw data and the page that is made of them, results/NAME.json and NAME.md. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './servers.ts';

const RESULTS = join(ROOT, 'bench', 'results');

export interface Verdict {
  readonly text: string;
  readonly limit: string;
  readonly measured: string;
  /** Undefined: not measured. */
  readonly met: boolean | undefined;
}

export interface Page<R> {
  toMarkdown(results: R): string;
  verdicts(results: R): readonly Verdict[];
}

export function writePage<R>(page: Page<R>, name: string, results: R): void {
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(join(RESULTS, `${name}.json`), `${JSON.stringify(results, null, 1)}\n`);
  renderPage(page, name);
  for (const { text, limit, measured, met } of page.verdicts(results))
    console.log(`${met === undefined ? '  ?' : met ? ' ok' : ' NO'}  ${text}: ${measured}, limit ${limit}`);
  console.log(`Written: bench/results/${name}.md and ${name}.json`);
}

/** The page anew from the raw data. */
export function renderPage<R>(page: Page<R>, name: string): void {
  const results = JSON.parse(readFileSync(join(RESULTS, `${name}.json`), 'utf8')) as R;
  writeFileSync(join(RESULTS, `${name}.md`), page.toMarkdown(results));
}
