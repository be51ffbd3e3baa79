/** Where the lines of the access log go, and in which form. */
import { type AccessFormatter, type AccessRecord, compileAccessFormat } from './access-format.ts';
import { type AccessLog, createAccessLog } from './access-log.ts';
import type { ErrorLog } from './error-log.ts';

export interface AccessSettings {
  /** A file, or `-` for standard output. */
  readonly path: string;
  /** Gunicorn's identifiers, or `json`. */
  readonly format: string;
}

/** How often lost lines are told of, at most. */
const TELL_DROPPED_MS = 10_000;

export class Access {
  private readonly file: AccessLog;
  private readonly format: AccessFormatter;
  private readonly log: ErrorLog;
  private toldDropped = 0;
  private readonly teller: NodeJS.Timeout;

  /** @throws {NunicornError} if the file cannot be opened or the format is none */
  static async open(settings: AccessSettings, log: ErrorLog): Promise<Access> {
    const format =
      settings.format === 'json'
        ? await (await import('./access-json.ts')).jsonAccessFormat()
        : compileAccessFormat(settings.format);
    return new Access(await createAccessLog(settings.path), format, log);
  }

  private constructor(file: AccessLog, format: AccessFormatter, log: ErrorLog) {
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
    this.file.reopen();
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
