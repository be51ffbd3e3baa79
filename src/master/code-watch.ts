/** --reload, for development: looks at the files of the app and tells when one of them has changed. Loaded only with it. */
import { existsSync, type FSWatcher, readdirSync, statSync, watch } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { ReloadEngine } from '../settings/types.ts';

const POLL_MS = 1000;
/** Many files change together: what comes in this time is one change. */
const SETTLE_MS = 200;
const MAGIC = /[*?[]/;

/** When each file was modified last, by its path: milliseconds since 1970, 0 if it is not there. */
export type FileTimes = Readonly<Record<string, number>>;

export class CodeWatch {
  private polls: boolean;
  private readonly patterns: readonly string[];
  private readonly changed: (path: string) => void;
  private readonly warn: (message: string) => void;
  /** As FileTimes. */
  private readonly files = new Map<string, number>();
  private readonly folders = new Map<string, FSWatcher>();
  private settling: NodeJS.Timeout | null = null;
  private timer: NodeJS.Timeout | null = null;

  /**
   * @param engine `poll` looks at each file once a second; the others have the system tell
   * @param extra files, or patterns with `*`, `**` and `?`, from `cwd`
   */
  constructor(
    engine: ReloadEngine,
    extra: readonly string[],
    cwd: string,
    changed: (path: string) => void,
    warn: (message: string) => void,
  ) {
    this.polls = engine === 'poll';
    this.changed = changed;
    this.warn = warn;
    const paths = extra.map((path) => resolve(cwd, path));
    this.patterns = paths.filter((path) => MAGIC.test(path));
    for (const path of [...paths.filter((path) => !MAGIC.test(path)), ...this.patterns.flatMap(filesOf)])
      this.add(path, modifiedAt(path));
    // Files that match a pattern may come later, whatever the engine is.
    if (this.polls || this.patterns.length > 0) this.poll();
  }

  private poll(): void {
    this.timer ??= setInterval(() => this.look(), POLL_MS);
  }

  /** Watches these too: for what changes after the given times. */
  addAll(files: FileTimes): void {
    for (const [path, modified] of Object.entries(files)) {
      if (this.files.has(path)) continue;
      this.add(path, modified);
      this.check(path);
    }
  }

  private add(path: string, modified: number): void {
    this.files.set(path, modified);
    const folder = dirname(path);
    if (!this.polls && !this.folders.has(folder) && existsSync(folder)) this.watchFolder(folder);
  }

  private watchFolder(folder: string): void {
    try {
      const watcher = watch(folder, (_, name) => {
        if (name !== null) this.check(join(folder, name));
      });
      watcher.on('error', () => {}); // The folder is gone, and its files with it.
      this.folders.set(folder, watcher);
    } catch (error) {
      if (this.polls) return;
      // The system watches only so many folders for each user (ENOSPC: fs.inotify.max_user_watches).
      this.polls = true;
      this.poll();
      this.warn(
        `The system cannot tell of changes (${error instanceof Error ? error.message : error}): polling instead`,
      );
    }
  }

  private look(): void {
    for (const path of this.patterns.flatMap(filesOf)) {
      if (this.files.has(path)) continue;
      this.add(path, modifiedAt(path));
      this.tell(path);
    }
    if (this.polls) for (const path of this.files.keys()) this.check(path);
  }

  private check(path: string): void {
    const before = this.files.get(path);
    if (before === undefined) return;
    const now = modifiedAt(path);
    // An editor may remove a file and write it anew: what is missing has not changed yet.
    if (now === 0 || now === before) return;
    this.files.set(path, now);
    this.tell(path);
  }

  private tell(path: string): void {
    this.settling ??= setTimeout(() => {
      this.settling = null;
      this.changed(path);
    }, SETTLE_MS);
  }
}

/** 0: it is not there, or may not be looked at. */
function modifiedAt(path: string): number {
  try {
    return Math.floor(statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  } catch {
    return 0;
  }
}

/** The files that a pattern names. */
function filesOf(pattern: string): string[] {
  const parts = pattern.split('/');
  const base =
    parts
      .slice(
        0,
        parts.findIndex((part) => MAGIC.test(part)),
      )
      .join('/') || '/';
  if (!existsSync(base)) return [];
  const source = pattern
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replace(/\*\*\/|\*|\?/g, (sign) => ({ '**/': '(?:.*/)?', '*': '[^/]*', '?': '[^/]' })[sign] ?? sign);
  const fits = new RegExp(`^${source}$`);
  const deep = pattern.slice(base.length + 1).includes('/');
  return filesBelow(base, deep)
    .map((name) => join(base, name))
    .filter((path) => fits.test(path));
}

function filesBelow(folder: string, deep: boolean): readonly string[] {
  try {
    return readdirSync(folder, { recursive: deep, encoding: 'utf8' });
  } catch {
    return []; // a folder in it has just gone, or may not be looked at
  }
}
