/** What is to be known of a setting. */
import type { ValueType } from './types.ts';

export const SECTIONS = [
  'Config File',
  'Server Socket',
  'Worker Processes',
  'Fronts and Queue',
  'Time Limits of the Front',
  'Security',
  'TLS',
  'Debugging',
  'Server Mechanics',
  'Logging',
  'Metrics',
  'Process Naming',
  'Server Hooks',
  'ASGI',
  'HTTP/2',
  'Dirty Arbiters',
  'Control',
] as const;

export type Section = (typeof SECTIONS)[number];

export interface Setting<T> {
  readonly section: Section;
  /** Short and long, as typed. None: the setting exists in the configuration file only. */
  readonly flags: readonly string[];
  readonly type: ValueType<T>;
  /** A raw value, read by `type` like any other. */
  readonly default: DefaultValue;
  /** The environment variable that replaces the default, and how its value becomes the raw value. */
  readonly env?: { readonly variable: string; readonly raw: (value: string) => unknown };
  /** What the documentation says of the default, where the value itself would not tell. */
  readonly defaultText?: string;
  readonly metavar?: string;
  readonly help: string;
  /** 'gunicorn': has this name and meaning there. 'nunicorn': our own. */
  readonly origin: 'gunicorn' | 'nunicorn';
  /** What its flag means, where that is not true. */
  readonly flagMeans?: boolean;
  /** Left out: it works. */
  readonly status?: Status;
  /** The value is the name of a file or folder: it is made absolute, from `chdir`. `-` stands for a standard stream. */
  readonly path?: true;
  /** Whoever knows the value may do what it protects: it is not shown. */
  readonly secret?: true;
  /** A reload cannot change it. */
  readonly restart?: true;
}

/** Why a setting of Gunicorn that nunicorn knows does not work as there. Its default asks for nothing and is always taken. */
export type Status =
  /** Another value is checked, taken, and said to have no effect in one line at the start. */
  | { readonly kind: 'no effect'; readonly because: string }
  /** Another value ends the start. `with`: where this setting is set too; otherwise it has no effect, in Gunicorn neither. */
  | { readonly kind: 'refused'; readonly instead: string; readonly with?: 'certfile' };

export type DefaultValue = string | number | boolean | null | readonly string[] | Readonly<Record<string, string>>;

/** Keeps the type of the value, which `Settings` is made from. */
export function setting<T>(definition: Setting<T>): Setting<T> {
  return definition;
}
