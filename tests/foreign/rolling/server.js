// A node server on the address that it is told, which answers its name after 20 ms. It prints when the first request for
// /counted comes. SIGTERM ends it as a deployment does: what is under way is answered, and connections are closed.
'use strict';
const http = require('http');

const [name, address] = process.argv.slice(2);
const [host, port] = address.split(':');
let served = false;
let ending = false;
const server = http.createServer((request, response) => {
  if (request.url === '/check') return response.end('well\n');
  if (request.url === '/counted' && !served) {
    console.log('first request');
    served = true;
  }
  setTimeout(() => {
    if (ending) response.setHeader('connection', 'close');
    response.end(`${name}\n`);
  }, 20);
});
server.listen(Number(port), host, () => console.log(`listening ${address}`));
process.on('SIGTERM', () => {
  ending = true;
  server.close(() => process.exit(0));
});
