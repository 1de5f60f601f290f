// Sends a PING every 200 ms to an HTTP/2 server that it asks nothing, and prints the code of the GOAWAY that comes of it.
'use strict';
const http2 = require('http2');

const session = http2.connect(`http://${process.argv[2]}`);
const timer = setInterval(() => session.ping(() => {}), 200);
session.on('goaway', (code) => {
  console.log(`goaway ${code}`);
  clearInterval(timer);
  session.destroy();
});
session.on('error', () => clearInterval(timer));
