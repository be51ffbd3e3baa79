/** The words that may stand in the application's place: what `nunicorn` does beside serving. */
export const COMMAND_NAMES = ['size', 'advise', 'ctl', 'top', 'completion'] as const;

export type CommandName = (typeof COMMAND_NAMES)[number];
