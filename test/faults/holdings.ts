/** What a server holds, and may not hold more of when a thousand workers have come and gone. */
import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Admin } from '../helpers/admin.ts';
import { descriptorCount, residentMiB } from '../helpers/processes.ts';
import type { Server } from '../helpers/server.ts';
import type { Kind } from './kinds.ts';

/** For longer than a worker that has gone is remembered: pidusage keeps a descriptor of it for five seconds. */
const LOOKS = 20;
const LOOK_EVERY_MS = 400;
/** pidusage opens a file of each process that is asked about, and closes it later. A leak would be one of each recycle, forty at least. */
const MOST_DESCRIPTORS = 6;
/** Heaps breathe. So much for a thousand workers is 16 KiB of each. */
const MOST_GROWTH_MIB = 16;

interface Look {
  /** Of the processes that stay, in MiB. */
  readonly memory: number;
  /** Of the same. */
  readonly descriptors: number;
  /** Sockets and whatever else is in the server's temporary folder. */
  readonly files: number;
  /** Metrics by name and labels. */
  readonly series: ReadonlySet<string>;
}

export class Holdings {
  private readonly memory: number;
  private readonly descriptors: number;
  private readonly files: number;
  /** In any of the looks, and in all of them. */
  private readonly anySeries: ReadonlySet<string>;
  private readonly allSeries: readonly string[];

  private constructor(looks: readonly [Look, ...Look[]]) {
    // The last connections and the last worker may be on their way out: the least is what does not go away.
    const least = (count: (look: Look) => number): number => Math.min(...looks.map(count));
    this.memory = least(({ memory }) => memory);
    this.descriptors = least(({ descriptors }) => descriptors);
    this.files = least(({ files }) => files);
    this.anySeries = new Set(looks.flatMap(({ series }) => [...series]));
    this.allSeries = [...looks[0].series].filter((name) => looks.every(({ series }) => series.has(name)));
  }

  /** While no client asks for anything. */
  static async atRest(server: Server, kind: Kind, admin: Admin): Promise<Holdings> {
    const looks: [Look, ...Look[]] = [await look(server, kind, admin)];
    while (looks.length < LOOKS) {
      await delay(LOOK_EVERY_MS);
      looks.push(await look(server, kind, admin));
    }
    return new Holdings(looks);
  }

  /** What there is more of than `before`. */
  grownSince(before: Holdings): string[] {
    const wrong: string[] = [];
    if (this.descriptors > before.descriptors + MOST_DESCRIPTORS)
      wrong.push(`descriptors ${before.descriptors} -> ${this.descriptors}`);
    if (this.files > before.files) wrong.push(`files in the temporary folder ${before.files} -> ${this.files}`);
    const growth = this.memory - before.memory;
    if (growth > MOST_GROWTH_MIB) wrong.push(`what stays grew by ${growth.toFixed(0)} MiB`);
    const series = this.allSeries.filter((name) => !before.anySeries.has(name));
    if (series.length > 0) wrong.push(`${series.length} metric series more: ${series.slice(0, 5).join(' ')}`);
    return wrong;
  }

  describeSince(before: Holdings): string {
    return (
      `what stays ${before.memory.toFixed(0)} -> ${this.memory.toFixed(0)} MiB; ` +
      `descriptors ${before.descriptors} -> ${this.descriptors}; files ${before.files} -> ${this.files}; ` +
      `metric series ${before.anySeries.size} -> ${this.allSeries.length}`
    );
  }
}

async function look(server: Server, kind: Kind, admin: Admin): Promise<Look> {
  const lasting = kind.lasting(server);
  return {
    memory: lasting.reduce((sum, pid) => sum + residentMiB(pid), 0),
    descriptors: lasting.reduce((sum, pid) => sum + descriptorCount(pid), 0),
    files: readdirSync(server.temporary, { recursive: true }).length,
    series: new Set((await admin.scrape()).keys()),
  };
}
