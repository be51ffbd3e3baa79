/** The pages the server itself answers with, in gunicorn's form. */
import { STATUS_CODES } from 'node:http';

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#x27;',
};

export function errorPage(status: number, message: string): string {
  const reason = STATUS_CODES[status] ?? 'Error';
  const text = message.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? character);
  return `<html>
  <head>
    <title>${reason}</title>
  </head>
  <body>
    <h1><p>${reason}</p></h1>
    ${text}
  </body>
</html>
`;
}

/** A whole answer as bytes, for a connection on which no request was understood. */
export function rawErrorAnswer(status: number, message: string): string {
  const page = errorPage(status, message);
  return (
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}\r\nServer: nunicorn\r\nDate: ${new Date().toUTCString()}\r\n` +
    `Connection: close\r\nContent-Type: text/html\r\nContent-Length: ${Buffer.byteLength(page)}\r\n\r\n${page}`
  );
}
