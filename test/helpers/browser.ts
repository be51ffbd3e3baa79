import { randomUUID } from 'node:crypto';
import { exchange, type Response } from './http.ts';
import type { Address } from './ports.ts';

export interface FormFile {
  readonly name: string;
  readonly type: string;
  readonly content: Buffer;
}

export type FormValue = string | FormFile;

/** A browser as far as forms need one: cookies and Django's CSRF token. Follows no redirect by itself. */
export class Browser {
  readonly #address: Address;
  readonly #headers: string;
  readonly cookies = new Map<string, string>();

  constructor(address: Address, headers = '') {
    this.#address = address;
    this.#headers = headers;
  }

  async #ask(method: string, path: string, headers: string, body: Buffer): Promise<Response> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const head =
      `${method} ${path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n${this.#headers}${headers}` +
      `${cookie ? `Cookie: ${cookie}\r\n` : ''}\r\n`;
    const response = await exchange(this.#address, Buffer.concat([Buffer.from(head, 'latin1'), body]));
    for (const line of response.headers('set-cookie')) {
      const [pair = ''] = line.split(';');
      const at = pair.indexOf('=');
      this.cookies.set(pair.slice(0, at), pair.slice(at + 1));
    }
    return response;
  }

  get(path: string): Promise<Response> {
    return this.#ask('GET', path, '', Buffer.alloc(0));
  }

  post(path: string, form: Readonly<Record<string, FormValue>>): Promise<Response> {
    const boundary = `----${randomUUID()}`;
    const parts: Buffer[] = [];
    for (const [name, value] of Object.entries(form)) {
      const file = typeof value === 'string' ? '' : `; filename="${value.name}"\r\nContent-Type: ${value.type}`;
      parts.push(
        Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"${file}\r\n\r\n`),
        typeof value === 'string' ? Buffer.from(value) : value.content,
        Buffer.from('\r\n'),
      );
    }
    parts.push(Buffer.from(`--${boundary}--\r\n`));
    const body = Buffer.concat(parts);
    const headers = `Content-Type: multipart/form-data; boundary=${boundary}\r\nContent-Length: ${body.length}\r\n`;
    return this.#ask('POST', path, headers, body);
  }

  /** Gets the page, takes its CSRF token, posts the form. */
  async submit(path: string, form: Readonly<Record<string, FormValue>>): Promise<Response> {
    const page = await this.get(path);
    const token = /name="csrfmiddlewaretoken" value="([^"]+)"/.exec(page.text())?.[1];
    if (token === undefined) throw new Error(`no CSRF token in ${path}: ${page.status} ${page.text()}`);
    return this.post(path, { csrfmiddlewaretoken: token, ...form });
  }
}
