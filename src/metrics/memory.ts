/** Memory of processes. RSS through pidusage each time it is asked for; PSS rarely, since the kernel walks all pages for it. */
import { readFile } from 'node:fs/promises';
import { residentMemory } from '../resident.ts';
import type { MemoryStatus } from './status.ts';

/** How old a figure may be. PSS costs about 20 ms of a thread for each GiB. */
const RSS_AGE_MS = 1000;
const PSS_AGE_MS = 30_000;

interface Entry {
  rss: number | null;
  pss: number | null;
  /** Anonymous memory that other processes have too, their part of it taken off. */
  cowSaved: number | null;
}

const UNKNOWN: Entry = { rss: null, pss: null, cowSaved: null };

export class Memory {
  private entries = new Map<number, Entry>();
  private rssAt = Number.NEGATIVE_INFINITY;
  private pssAt = Number.NEGATIVE_INFINITY;
  private reading: Promise<void> | null = null;

  /** Reads anew what is too old. Rests on the thread pool; never throws. */
  async refresh(pids: readonly number[], time: number): Promise<void> {
    if (time - this.rssAt < RSS_AGE_MS) return;
    this.reading ??= this.read(pids, time).finally(() => {
      this.reading = null;
    });
    await this.reading;
  }

  of(pid: number | null): MemoryStatus {
    const { rss, pss } = (pid === null ? undefined : this.entries.get(pid)) ?? UNKNOWN;
    return { rss, pss };
  }

  cowSaved(pids: readonly number[]): number | null {
    let sum: number | null = null;
    for (const pid of pids) {
      const saved = this.entries.get(pid)?.cowSaved ?? null;
      if (saved !== null) sum = (sum ?? 0) + saved;
    }
    return sum;
  }

  private async read(pids: readonly number[], time: number): Promise<void> {
    this.rssAt = time;
    const entries = new Map<number, Entry>();
    const resident = await residentMemory(pids);
    for (const pid of pids) {
      entries.set(pid, { ...(this.entries.get(pid) ?? UNKNOWN), rss: resident.get(pid) ?? null });
    }
    this.entries = entries;
    if (time - this.pssAt < PSS_AGE_MS && pids.every((pid) => entries.get(pid)?.pss !== null)) return;
    this.pssAt = time;
    // Nobody waits for it: the figures are there the next time.
    for (const [pid, entry] of entries) void readRollup(pid, entry);
  }
}

async function readRollup(pid: number, entry: Entry): Promise<void> {
  try {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, 'latin1');
    const bytes = (name: string): number | null => {
      const match = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text);
      return match === null ? null : Number(match[1]) * 1024;
    };
    entry.pss = bytes('Pss');
    const anonymous = bytes('Anonymous');
    const pssAnonymous = bytes('Pss_Anon');
    entry.cowSaved = anonymous === null || pssAnonymous === null ? null : Math.max(0, anonymous - pssAnonymous);
  } catch {
    // Not Linux, not permitted, or gone.
  }
}
