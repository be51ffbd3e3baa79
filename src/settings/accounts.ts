import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** The id of the user with this name, or undefined. Asks the system (`id -u`), which knows more than /etc/passwd. */
export function userId(name: string): number | undefined {
  return run('id', ['-u', '--', name], (output) => output.trim());
}

/** The id of the group with this name, or undefined. No portable tool looks up a group, so /etc/group comes first. */
export function groupId(name: string): number | undefined {
  const line = readGroups().find((entry) => entry.startsWith(`${name}:`));
  if (line !== undefined) return toId(line.split(':')[2]);
  return run('getent', ['group', name], (output) => output.split(':')[2]);
}

function readGroups(): readonly string[] {
  try {
    return readFileSync('/etc/group', 'utf8').split('\n');
  } catch {
    return [];
  }
}

function run(
  command: string,
  args: readonly string[],
  pick: (output: string) => string | undefined,
): number | undefined {
  try {
    return toId(pick(execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })));
  } catch {
    return undefined;
  }
}

function toId(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
