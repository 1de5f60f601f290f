// A node server on the address that it is told, which answers its name after 20 ms. It prints when the first request comes
// that is no check. SIGTERM ends it as a deployment does: what is under way is answered.
'use strict';
const http = require('http');

const [name, address] = process.argv.slice(2);
const [host, port] = address.split(':');
let served = false;
const server = http.createServer((request, response) => {
  if (request.url === '/check') return response.end('well\n');
  if (!served) console.log('first request');
  served = true;
  setTimeout(() => response.end(`${name}\n`), 20);
});
server.listen(Number(port), host, () => console.log(`listening ${address}`));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
