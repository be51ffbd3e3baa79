/** JSON by pino: `time` in ISO 8601, `level` in words. pino makes the lines, our own logs write them. */
import { escapeJson } from './escape.ts';
import { LOG_LEVELS, type LogLevel } from './levels.ts';

type Line = (level: LogLevel, fields: Record<string, unknown>, message?: string) => string;

/** @param pid stands in each line, if it is not null */
export async function jsonLines(pid: number | null): Promise<Line> {
  const { pino, stdTimeFunctions } = await import('pino');
  let line = '';
  const logger = pino<LogLevel>(
    {
      base: pid === null ? null : { pid },
      customLevels: Object.fromEntries(LOG_LEVELS.map((level, at) => [level, (at + 1) * 10])) as Record<
        LogLevel,
        number
      >,
      useOnlyCustomLevels: true,
      level: 'debug',
      messageKey: 'message',
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    {
      write(text: string) {
        line = escapeJson(text.slice(0, -1));
      },
    },
  );
  return (level, fields, message) => {
    logger[level](fields, message);
    return line;
  };
}
