/** Where the lines of the access log go, and in which form. */
import { type AccessFormatter, type AccessRecord, compileAccessFormat } from './access-format.ts';
import { type AccessLog, createAccessLog } from './access-log.ts';
import type { ErrorLog } from './error-log.ts';
import type { LogProcessAddress } from './log-link.ts';

export type AccessSettings =
  | {
      /** A file, or `-` for standard output. */
      readonly path: string;
      /** Gunicorn's identifiers, or `json`. */
      readonly format: string;
    }
  /** A logger of Python's writes the lines. */
  | { readonly process: LogProcessAddress };

/** Takes what is known of each request. */
export interface Access {
  write(record: AccessRecord): void;
  /** How many lines were lost. */
  readonly dropped: number;
  /** Opens the file anew. The old one stays in use if that fails, and the log says so. */
  reopen(): void;
  close(): Promise<void>;
}

/** @throws {NunicornError} if the file cannot be opened or the format is none */
export async function openAccess(settings: AccessSettings, log: ErrorLog): Promise<Access> {
  if ('process' in settings) {
    const link = (await import('./log-link.ts')).linkTo(settings.process);
    return {
      write: (record) => link.access(record),
      get dropped() {
        return link.dropped;
      },
      reopen: () => {},
      close: () => link.close(),
    };
  }
  const format =
    settings.format === 'json'
      ? await (await import('./access-json.ts')).jsonAccessFormat()
      : compileAccessFormat(settings.format);
  return new AccessFile(await createAccessLog(settings.path), format, log);
}

/** How often lost lines are told of, at most. */
const TELL_DROPPED_MS = 10_000;

class AccessFile implements Access {
  private readonly file: AccessLog;
  private readonly format: AccessFormatter;
  private readonly log: ErrorLog;
  private toldDropped = 0;
  private readonly teller: NodeJS.Timeout;

  constructor(file: AccessLog, format: AccessFormatter, log: ErrorLog) {
    this.file = file;
    this.format = format;
    this.log = log;
    this.teller = setInterval(() => this.tellDropped(), TELL_DROPPED_MS).unref();
  }

  /** How many lines were lost so far. */
  get dropped(): number {
    return this.file.dropped;
  }

  write(record: AccessRecord): void {
    this.file.write(this.format(record));
  }

  reopen(): void {
    try {
      this.file.reopen();
    } catch (error) {
      this.log.error(error instanceof Error ? error.message : String(error));
    }
  }

  async close(): Promise<void> {
    clearInterval(this.teller);
    await this.file.close();
    this.tellDropped();
  }

  private tellDropped(): void {
    const dropped = this.file.dropped - this.toldDropped;
    if (dropped === 0) return;
    this.toldDropped += dropped;
    this.log.warning(`${dropped} lines of the access log were dropped: nobody took them`);
  }
}
