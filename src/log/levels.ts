/** What the error log can be told. Fronts load this, and of the settings' own files nothing. */

export type LogLevel = 'debug' | 'info' | 'warning' | 'error' | 'critical';

/** From the least severe to the most. */
export const LOG_LEVELS: readonly LogLevel[] = ['debug', 'info', 'warning', 'error', 'critical'];

export type LogFormat = 'text' | 'json';
