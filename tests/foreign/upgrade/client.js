// node's own HTTP client and its 'upgrade' event. Usage: node client.js URL OPTIONS, where OPTIONS is JSON:
//   upgrade: the lines of Upgrade; bytes: the size of a body; chunked: without Content-Length; echo: how many bytes are sent and
//   awaited after the 101; stay: the client never ends its side, and goes on when the server has ended its own.
//
// Prints JSON: `status`, `upgrade` of the answer, `told` (the server's first line, or the body), `echoed` (whether all came back
// and then `bye`).
'use strict';
const http = require('http');
const crypto = require('crypto');

const [url, text] = process.argv.slice(2);
const options = JSON.parse(text);
const body = Buffer.alloc(options.bytes ?? 0, 'body of a request ');
const headers = { connection: 'Upgrade', upgrade: options.upgrade };
if (!options.chunked) headers['content-length'] = body.length;
const request = http.request(url, { method: 'POST', headers });
const done = (what) => {
  console.log(JSON.stringify({ sha256: crypto.createHash('sha256').update(body).digest('hex'), ...what }));
  if (!options.stay) process.exit(0);
};

request.on('error', (error) => done({ error: error.code ?? error.message }));
request.on('response', (response) => {
  let told = '';
  response.on('data', (piece) => { told += piece; });
  response.on('end', () => done({ status: response.statusCode, upgrade: response.headers.upgrade ?? null, told }));
});
request.on('upgrade', (response, socket, head) => {
  const sent = crypto.randomBytes(options.echo ?? 0);
  const pieces = [head];
  let begun = false;
  const received = () => Buffer.concat(pieces);
  const look = () => {
    if (begun || !received().includes('\n')) return;
    begun = true;
    if (!options.stay) socket.end(sent);
  };
  socket.on('data', (piece) => { pieces.push(piece); look(); });
  socket.on('error', () => {});
  const finish = () => {
    const all = received();
    const line = all.indexOf('\n');
    const rest = all.subarray(line + 1);
    done({
      status: response.statusCode,
      upgrade: response.headers.upgrade,
      told: all.subarray(0, line).toString(),
      echoed: rest.equals(Buffer.concat([sent, Buffer.from('bye\n')])),
    });
  };
  socket.on('end', finish);
  if (options.stay) {
    socket.allowHalfOpen = true;
    // A socket from which nothing more comes does not keep node running.
    setTimeout(() => {}, 60_000);
  }
  look();
});
if (options.chunked) {
  request.write(body.subarray(0, body.length / 2));
  request.end(body.subarray(body.length / 2));
} else request.end(body);
