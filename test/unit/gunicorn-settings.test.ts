// The table of settings against that of the real gunicorn: every setting with its flags, its kind of value and its default.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import type { Setting } from '../../src/settings/setting.ts';
import { isSettingName, SETTING_NAMES, SETTINGS } from '../../src/settings/table.ts';
import { PYTHON } from '../helpers/paths.ts';

interface GunicornSetting {
  readonly name: string;
  readonly flags: readonly string[];
  /** argparse's action. */
  readonly action: 'store_true' | 'store_const' | 'append' | null;
  /** `?`: the flag may stand alone. */
  readonly nargs: string | null;
  readonly validator: string;
  /** null also for what has no form in JSON. */
  readonly default: unknown;
}

const DUMP = `
import json, os
from gunicorn import config
def plain(value):
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return None
print(json.dumps([
    dict(name=s.name, flags=s.cli or [], action=s.action, nargs=s.nargs, validator=getattr(s.validator, "__name__", ""), default=plain(s.default))
    for s in config.KNOWN_SETTINGS
]))
`;

/** Defaults that are the same under another name: which of Gunicorn's, and what stands for it here. */
const OTHER_DEFAULTS: Readonly<Record<string, string>> = {
  config: 'none: ./gunicorn.conf.py is looked for',
  chdir: 'the folder of the start',
  user: 'null: whoever starts the server',
  group: 'null: whoever starts the server',
  proc_name: 'empty: the application',
  control_socket: 'depends on the environment',
};

const context = { cwd: process.cwd(), warn: (): void => {} };

// `npm test` makes the environment; a clone that has only run `npm run check` may not have it yet.
describe("gunicorn's own table", { skip: existsSync(PYTHON) ? false : 'no .test/venv' }, () => {
  const gunicorns = existsSync(PYTHON)
    ? (JSON.parse(
        execFileSync(PYTHON, ['-c', DUMP], { encoding: 'utf8', env: { PATH: process.env.PATH } }),
      ) as readonly GunicornSetting[])
    : [];

  test('has the settings that are known here', () => {
    const ours = SETTING_NAMES.filter((name) => SETTINGS[name].origin === 'gunicorn').sort();
    assert.deepEqual(ours, gunicorns.map(({ name }) => name).sort());
  });

  test('has the same flags', () => {
    for (const { name, flags } of gunicorns) {
      const ours = isSettingName(name) ? SETTINGS[name].flags : undefined;
      for (const flag of flags)
        assert.ok(
          ours?.some((own) => own === flag),
          `${name}: ${flag}`,
        );
    }
  });

  test('takes the same kinds of value', () => {
    for (const { name, flags, action, nargs, validator } of gunicorns) {
      if (!isSettingName(name)) continue;
      const { type }: Setting<unknown> = SETTINGS[name];
      if (flags.length > 0) {
        const arity = action === 'append' ? 'many' : action !== null ? 'flag' : nargs === '?' ? 'optional' : 'one';
        assert.equal(type.arity, arity, name);
      }
      if (name === 'cert_reqs') assert.equal(type.parse('0x2', context), 'required');
      else if (validator === 'validate_pos_int') assert.equal(type.parse('0x10', context), 16, name);
      if (validator === 'validate_bool') {
        assert.deepEqual([type.parse('True', context), type.parse(false, context)], [true, false], name);
        assert.throws(() => type.parse('maybe', context), name);
      }
      if (validator === 'validate_dict') assert.throws(() => type.parse('x', context), name);
    }
  });

  test('has the same defaults', () => {
    for (const { name, default: theirs } of gunicorns) {
      if (!isSettingName(name) || name in OTHER_DEFAULTS) continue;
      const { type, default: ours }: Setting<unknown> = SETTINGS[name];
      if (theirs === null) assert.ok(ours === null || ours === '' || ours === true, `${name}: ${ours}`);
      else assert.deepEqual(type.parse(ours, context), type.parse(theirs, context), name);
    }
  });
});
