/** Start and end of all that watches the server. Loaded when a setting asks for it. */
import type { ErrorLog } from '../log/error-log.ts';
import type { Settings } from '../settings/table.ts';
import { AdminServer } from './admin-server.ts';
import { MasterMetrics } from './master-metrics.ts';
import type { ServerView } from './view.ts';

export interface Monitoring {
  readonly metrics: MasterMetrics;
  close(): void;
}

/** Throws NunicornError, e.g. if the address of --admin-bind cannot be had. */
export async function startMonitoring(view: ServerView, settings: Settings, log: ErrorLog): Promise<Monitoring> {
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
  return {
    metrics,
    close() {
      admin?.close();
      metrics.close();
    },
  };
}
