// A node server over HTTP/1.1 that does what it is asked for, good or bad; the path says what, and the query how:
//
//   /well, /echo…      the target as body; with `status`, an answer of that status, which node sends without a body for 204
//                      and 304; with `stray`, a second answer that nobody asked for so many milliseconds after it
//   /connections       how many connections it has accepted
//   /malformed         bytes that are no HTTP
//   /never, /late      no answer, and one after a second
//   /fields            `count` fields of `size` bytes, or as many trailers with `trailers`
//   /reset             a TCP reset instead of an answer
//   /truncated         a body that ends before the length that was announced
//
// Arguments: the address to listen on, and for TLS the certificate, its key and the newest version of TLS.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');

const [address = '127.0.0.1:0', cert, key, maxVersion] = process.argv.slice(2);
const [host, port] = address.split(':');
const STRAY = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nstray';
let connections = 0;

const actions = {
  '/connections': (_, response) => response.end(String(connections)),
  '/malformed': ({ socket }) => socket.end('this is no HTTP\r\n\r\n'),
  '/never': () => {},
  '/late': (_, response) => setTimeout(() => response.end('late\n'), 1000),
  '/reset': ({ socket }) => socket.resetAndDestroy(),
  '/truncated': ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort'),
  '/fields': (_, response, query) => {
    const value = 'v'.repeat(Number(query.get('size') ?? 8));
    const fields = Array.from({ length: Number(query.get('count') ?? 300) }, (_, n) => [`x-field-${n}`, value]);
    if (!query.has('trailers')) fields.forEach(([name, value]) => response.setHeader(name, value));
    response.write('fields\n');
    if (query.has('trailers')) response.addTrailers(fields);
    response.end();
  },
};

function echo(request, response, query) {
  const body = request.url;
  response.statusCode = Number(query.get('status') ?? 200);
  if (![204, 304].includes(response.statusCode)) response.setHeader('content-length', Buffer.byteLength(body));
  const { socket } = request;
  response.end(body, () => {
    if (query.has('stray')) setTimeout(() => socket.write(STRAY), Number(query.get('stray')));
  });
}

function serve(request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  (actions[pathname] ?? echo)(request, response, searchParams);
}

const server = cert
  ? https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), maxVersion }, serve)
  : http.createServer(serve);
// A proxy decides itself how long it keeps a connection.
server.keepAliveTimeout = 60_000;
server.on(cert ? 'secureConnection' : 'connection', (socket) => {
  connections++;
  // Connections that are broken off on purpose are no news.
  socket.on('error', () => {});
});
server.listen(Number(port), host, () => console.log(`listening ${host}:${server.address().port}`));
