/** Start and end of all that watches the server. Loaded when a setting asks for it. */
import type { ControlSocket } from '../control/control-socket.ts';
import type { ServerActions } from '../control/target.ts';
import type { SwitchableLog } from '../log/switchable-log.ts';
import { controlSocketPath, statsdSettings } from '../settings/admin.ts';
import type { Settings } from '../settings/table.ts';
import { AdminServer } from './admin-server.ts';
import { MasterMetrics } from './master-metrics.ts';
import type { ServerView } from './view.ts';

export interface Monitoring {
  readonly metrics: MasterMetrics;
  close(): Promise<void>;
}

/** Throws NunicornError, e.g. if the address of --admin-bind cannot be had. */
export async function startMonitoring(
  view: ServerView,
  actions: ServerActions,
  settings: Settings,
  log: SwitchableLog,
): Promise<Monitoring> {
  const metrics = new MasterMetrics(view, log);
  let admin: AdminServer | null = null;
  if (settings.admin_bind !== null) {
    admin = new AdminServer(settings.admin_bind, settings.admin_token, {
      metrics,
      expose: async (format) => {
        const { expose, CONTENT_TYPE } = await import('./exposition.ts');
        return { contentType: CONTENT_TYPE[format], text: await expose(await metrics.samples(), [], '', format) };
      },
    });
    await admin.listen(log);
  }
  const control = await startControl(metrics, view, actions, settings, log).catch((error: unknown) => {
    admin?.close();
    throw error;
  });
  const statsd = await startStatsd(metrics, settings, log);
  return {
    metrics,
    async close() {
      control?.close();
      admin?.close();
      metrics.close();
      await statsd?.();
    },
  };
}

/** Returns what ends it; null if there is no statsd server. */
async function startStatsd(
  metrics: MasterMetrics,
  settings: Settings,
  log: SwitchableLog,
): Promise<(() => Promise<void>) | null> {
  const options = statsdSettings(settings);
  if (options === null) return null;
  const [{ Statsd }, { StatsdReporter }] = await Promise.all([import('./statsd.ts'), import('./statsd-reporter.ts')]);
  const statsd = await Statsd.open(options, log);
  log.watch((level) => statsd.count(`gunicorn.log.${level}`, 1));
  const reporter = new StatsdReporter(metrics, statsd);
  return async () => {
    reporter.close();
    await statsd.close();
  };
}

async function startControl(
  metrics: MasterMetrics,
  view: ServerView,
  actions: ServerActions,
  settings: Settings,
  log: SwitchableLog,
): Promise<ControlSocket | null> {
  const path = controlSocketPath(settings);
  if (path === null) return null;
  const { ControlSocket: Socket } = await import('../control/control-socket.ts');
  const target = {
    view,
    actions,
    status: () => metrics.status(),
    requests: () => metrics.requests(),
    signal: (signal: NodeJS.Signals) => void process.kill(process.pid, signal),
  };
  const socket = new Socket(path, settings.control_socket_mode, target, log);
  await socket.listen();
  return socket;
}
