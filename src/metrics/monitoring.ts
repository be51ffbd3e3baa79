/** All that watches the server, as long as its master lives. Loaded when a setting asks for it. */
import type { ControlSocket } from '../control/control-socket.ts';
import type { ServerActions } from '../control/target.ts';
import { NunicornError } from '../errors.ts';
import type { SwitchableLog } from '../log/switchable-log.ts';
import { controlSocketPath, statsdSettings } from '../settings/admin.ts';
import type { Settings } from '../settings/table.ts';
import { AdminServer } from './admin-server.ts';
import { awaitCounted, type Channel, hearCounted, sendCounted } from './handover.ts';
import { MasterMetrics } from './master-metrics.ts';
import type { ServerView } from './view.ts';

export class Monitoring {
  readonly metrics: MasterMetrics;
  private readonly settings: Settings;
  private readonly log: SwitchableLog;
  private readonly view: ServerView;
  private readonly actions: ServerActions;
  private admin: AdminServer | null = null;
  private control: ControlSocket | null = null;
  private endStatsd: (() => Promise<void>) | null = null;

  /**
   * `isUpgrade`: the old master has the address of --admin-bind until it ends or rests, and then tells what it has counted.
   *
   * @throws {NunicornError} e.g. if that address cannot be had
   */
  static async start(
    view: ServerView,
    actions: ServerActions,
    settings: Settings,
    isUpgrade: boolean,
    log: SwitchableLog,
  ): Promise<Monitoring> {
    const monitoring = new Monitoring(view, actions, settings, log);
    if (isUpgrade) {
      awaitCounted(
        (counted) => monitoring.metrics.takeOver(counted),
        () => void monitoring.openLater(),
      );
    } else await monitoring.open();
    await monitoring.startStatsd();
    return monitoring;
  }

  private constructor(view: ServerView, actions: ServerActions, settings: Settings, log: SwitchableLog) {
    this.view = view;
    this.actions = actions;
    this.settings = settings;
    this.log = log;
    this.metrics = new MasterMetrics(view, log);
  }

  /** A new master was started, and knows nothing yet. What it has counted counts here if it ends first. */
  beside(newMaster: Channel): void {
    this.metrics.newOther();
    hearCounted(newMaster, (counted) => this.metrics.takeOver(counted));
  }

  /** The other master is to be asked from now on, and goes on with what was counted here. */
  async yieldTo(other: Channel): Promise<void> {
    this.shut();
    await sendCounted(other, await this.metrics.handOver());
  }

  /** The master serves again, after a rest. */
  async openLater(): Promise<void> {
    try {
      await this.open();
    } catch (error) {
      if (!(error instanceof NunicornError)) throw error;
      this.log.error(error.message);
    }
  }

  async close(): Promise<void> {
    this.shut();
    this.metrics.close();
    await this.endStatsd?.();
  }

  private async open(): Promise<void> {
    try {
      await this.openAdmin();
      await this.openControl();
    } catch (error) {
      this.shut();
      throw error;
    }
  }

  private shut(): void {
    this.admin?.close();
    this.admin = null;
    this.control?.close();
    this.control = null;
  }

  private async openAdmin(): Promise<void> {
    const { admin_bind, admin_token } = this.settings;
    if (admin_bind === null || this.admin !== null) return;
    const { metrics } = this;
    const admin = new AdminServer(admin_bind, admin_token, {
      metrics,
      expose: async (format) => {
        const { expose, CONTENT_TYPE } = await import('./exposition.ts');
        const [samples, more] = await Promise.all([metrics.samples(), metrics.prometheusText(format)]);
        return { contentType: CONTENT_TYPE[format], text: await expose(samples, metrics.appSamples(), more, format) };
      },
    });
    await admin.listen(this.log);
    this.admin = admin;
  }

  private async startStatsd(): Promise<void> {
    const options = statsdSettings(this.settings);
    if (options === null) return;
    const [{ Statsd }, { StatsdReporter }] = await Promise.all([import('./statsd.ts'), import('./statsd-reporter.ts')]);
    const statsd = await Statsd.open(options, this.log);
    this.log.watch((level) => statsd.count(`gunicorn.log.${level}`, 1));
    const reporter = new StatsdReporter(this.metrics, statsd);
    this.endStatsd = async () => {
      reporter.close();
      await statsd.close();
    };
  }

  private async openControl(): Promise<void> {
    const { metrics, view, actions, settings } = this;
    const path = controlSocketPath(settings);
    if (path === null || this.control !== null) return;
    const { ControlSocket: Socket } = await import('../control/control-socket.ts');
    const target = {
      view,
      actions,
      status: () => metrics.status(),
      requests: () => metrics.requests(),
      signal: (signal: NodeJS.Signals) => void process.kill(process.pid, signal),
    };
    const socket = new Socket(path, settings.control_socket_mode, target, this.log);
    await socket.listen();
    this.control = socket;
  }
}
