import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until, withDeadline } from './deadline.ts';
import { type Address, freePort, isListening } from './ports.ts';

export interface NginxOptions {
  /** What `upstream` holds: `127.0.0.1:8000` or `unix:/a/b.sock`. */
  readonly upstream: string;
  /** Lines for `upstream { }`, such as `keepalive 8;`. */
  readonly upstreamLines?: string;
  /** Lines for `location / { }`. */
  readonly locationLines?: string;
}

/** A real nginx in front of a server, with its own folder and no privileges to need. */
export class Nginx {
  readonly address: Address;
  readonly #child: ChildProcess;
  readonly #folder: string;

  private constructor(child: ChildProcess, folder: string, address: Address) {
    this.#child = child;
    this.#folder = folder;
    this.address = address;
  }

  static async start(options: NginxOptions): Promise<Nginx> {
    const folder = mkdtempSync(join(tmpdir(), 'nt-nginx-'));
    const port = await freePort();
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    writeFileSync(
      join(folder, 'nginx.conf'),
      `daemon off;
master_process off;
worker_processes 1;
pid ${folder}/nginx.pid;
error_log ${folder}/error.log info;
events { worker_connections 256; }
http {
  log_format statuses '$status $request_uri';
  access_log ${folder}/access.log statuses;
  client_max_body_size 0;
  ${paths.map((name) => `${name}_temp_path ${folder}/${name};`).join('\n  ')}
  upstream app {
    server ${options.upstream} fail_timeout=0;
    ${options.upstreamLines ?? ''}
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_redirect off;
      ${options.locationLines ?? ''}
      proxy_pass http://app;
    }
  }
}
`,
    );
    const child = spawn('nginx', ['-p', folder, '-e', join(folder, 'error.log'), '-c', join(folder, 'nginx.conf')], {
      stdio: 'ignore',
    });
    const nginx = new Nginx(child, folder, { host: '127.0.0.1', port });
    const failed = new Promise<never>((_resolve, reject) => child.once('error', reject));
    try {
      await Promise.race([
        failed,
        until(
          () => isListening(nginx.address),
          () => `nginx to listen\n${nginx.log}`,
        ),
      ]);
    } catch (error) {
      await nginx.stop();
      throw error;
    }
    process.once('exit', () => child.kill('SIGKILL'));
    return nginx;
  }

  get log(): string {
    try {
      return readFileSync(join(this.#folder, 'error.log'), 'utf8');
    } catch {
      return '';
    }
  }

  /** A line for each request that is over: `499 /path`. */
  get access(): string {
    return readFileSync(join(this.#folder, 'access.log'), 'utf8');
  }

  /** nginx found nothing wrong with what the server sent. */
  noComplaints(): void {
    const complaints = this.log.split('\n').filter((line) => /\[(warn|error|crit|alert|emerg)\]/.test(line));
    assert.deepEqual(
      complaints.filter((line) => !line.includes('is buffered to a temporary file')),
      [],
    );
  }

  async stop(): Promise<void> {
    if (this.#child.pid !== undefined && this.#child.exitCode === null) {
      const exited = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      await withDeadline(exited, 'the end of nginx');
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export async function withNginx(options: NginxOptions, test: (nginx: Nginx) => Promise<void>): Promise<void> {
  const nginx = await Nginx.start(options);
  try {
    await test(nginx);
  } finally {
    await nginx.stop();
  }
}
