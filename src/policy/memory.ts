/** Which worker uses too much memory. Pure: figures come in as arguments; memory in bytes, time in milliseconds. */

/** So many samples in a row have to be over the soft limit: a peak is no leak. */
const SAMPLES = 3;
/** The cgroup's memory is nearly used up from this part of its limit on. */
const CGROUP_SHARE = 0.9;
/** From this part on the workers are looked at, so that it is known how fast each grew. */
const CGROUP_LOOK_SHARE = 0.5;
/** How long a recycle on behalf of the cgroup is given to show an effect before the next one. */
const CGROUP_PAUSE_MS = 30_000;

export interface MemoryLimits {
  /** 0: none. */
  readonly soft: number;
  readonly hard: number;
}

export type MemoryStep = 'fine' | 'recycle' | 'kill';

/** One worker's memory, sample by sample. */
export class WorkerMemory {
  private first: { readonly bytes: number; readonly served: number } | null = null;
  private over = 0;
  bytes = 0;
  private served = 0;

  /** `served`: the requests that it has answered. */
  sample(bytes: number, served: number, limits: MemoryLimits): MemoryStep {
    this.first ??= { bytes, served };
    this.bytes = bytes;
    this.served = served;
    if (limits.hard > 0 && bytes > limits.hard) return 'kill';
    this.over = limits.soft > 0 && bytes > limits.soft ? this.over + 1 : 0;
    return this.over >= SAMPLES ? 'recycle' : 'fine';
  }

  /** `312 MB, 4.1 MB more per 1,000 requests over its last 52000 (76000 answered)` */
  describe(): string {
    const requests = this.served - (this.first?.served ?? 0);
    const grown = megabytes(this.bytes - (this.first?.bytes ?? 0));
    const growth =
      requests > 0
        ? `, ${((grown * 1000) / requests).toFixed(1)} MB more per 1,000 requests over its last ${requests}`
        : '';
    return `${megabytes(this.bytes).toFixed(0)} MB${growth} (${this.served} answered)`;
  }
}

export function megabytes(bytes: number): number {
  return bytes / (1024 * 1024);
}

/** When the server's cgroup nears its limit: which worker goes. */
export class CgroupWatch {
  private lastAt = Number.NEGATIVE_INFINITY;

  /** Whether `used` of `limit` is so much that the workers are worth a look. */
  isFilling(used: number, limit: number): boolean {
    return used > CGROUP_LOOK_SHARE * limit;
  }

  /** Whether `used` of `limit` is too much, and the last recycle for it long enough ago. */
  isDue(used: number, limit: number, now: number): boolean {
    return used > CGROUP_SHARE * limit && now - this.lastAt >= CGROUP_PAUSE_MS;
  }

  /** The serial of the worker that uses most; null if there is none. */
  choose(memories: ReadonlyMap<number, WorkerMemory>, now: number): number | null {
    let fattest: number | null = null;
    let most = 0;
    for (const [serial, { bytes }] of memories) {
      if (bytes <= most) continue;
      most = bytes;
      fattest = serial;
    }
    if (fattest !== null) this.lastAt = now;
    return fattest;
  }
}
