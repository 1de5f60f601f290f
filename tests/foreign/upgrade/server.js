// node's own HTTP server with an 'upgrade' event. Prints `listening HOST:PORT`.
//
// The body of an upgrade goes to the socket as it is; the server reads as many bytes as Content-Length says, or up to the
// last chunk, and answers 101. The first line after it is JSON: the protocols and Content-Length that were asked for, and the
// size and digest of the body. Then every byte comes back until the client ends, and `bye` after that.
//
// The query: `as` is the protocol that the 101 names, in place of the first one asked for; `early` answers before the body is
// read; `leave` ends the server's side behind the line; `refuse` answers with that status. What does not ask for an
// upgrade gets 200 and the same JSON.
'use strict';
const http = require('http');
const crypto = require('crypto');

function told(request, body) {
  const wishes = request.rawHeaders.filter((_, n) => n % 2 === 1 && request.rawHeaders[n - 1].toLowerCase() === 'upgrade');
  return JSON.stringify({
    method: request.method,
    upgrade: wishes,
    length: request.headers['content-length'] ?? null,
    size: body.length,
    sha256: crypto.createHash('sha256').update(body).digest('hex'),
  });
}

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => response.end(told(request, Buffer.concat(pieces)) + '\n'));
});

server.on('upgrade', (request, socket, head) => {
  const query = new URL(request.url, 'http://localhost').searchParams;
  const chunked = request.headers['transfer-encoding'] === 'chunked';
  const length = Number(request.headers['content-length'] ?? 0);
  const protocol = query.get('as') ?? request.headers.upgrade.split(',')[0].trim();
  const accept = () => socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`);
  let received = Buffer.alloc(0);
  socket.on('error', () => {});
  if (query.has('refuse')) {
    const text = 'not here\n';
    socket.end(`HTTP/1.1 ${query.get('refuse')} Refused\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`);
    return;
  }
  if (query.has('early')) accept();

  // The end of the body in what was received, or -1. The chunks of these tests have no trailers.
  const end = () => {
    if (!chunked) return received.length >= length ? length : -1;
    const last = received.indexOf('0\r\n\r\n');
    return last === -1 ? -1 : last + 5;
  };
  const begin = (at) => {
    const body = received.subarray(0, at);
    const rest = received.subarray(at);
    if (!query.has('early')) accept();
    socket.write(`${told(request, body)}\n`);
    if (query.has('leave')) return socket.end();
    socket.write(rest);
    socket.on('data', (piece) => socket.write(piece) || (socket.pause(), socket.once('drain', () => socket.resume())));
    socket.on('end', () => socket.end('bye\n'));
  };
  const take = (piece) => {
    received = Buffer.concat([received, piece]);
    const at = end();
    if (at === -1) return;
    socket.off('data', take);
    begin(at);
  };
  socket.on('data', take);
  take(head);
});
server.listen(0, '127.0.0.1', () => console.log(`listening 127.0.0.1:${server.address().port}`));
