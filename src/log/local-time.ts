export interface Clock {
  readonly year: string;
  /** 01 to 12. */
  readonly month: string;
  readonly day: string;
  /** HH:MM:SS. */
  readonly time: string;
  /** Distance from UTC, e.g. +0200. */
  readonly zone: string;
}

/** The parts of a moment in the machine's time zone, as log lines show them. */
export function clock(moment: Date): Clock {
  const east = -moment.getTimezoneOffset();
  const distance = Math.abs(east);
  return {
    year: String(moment.getFullYear()),
    month: two(moment.getMonth() + 1),
    day: two(moment.getDate()),
    time: `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`,
    zone: `${east < 0 ? '-' : '+'}${two(Math.floor(distance / 60))}${two(distance % 60)}`,
  };
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}
