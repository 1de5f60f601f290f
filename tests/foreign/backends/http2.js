// A node server over HTTP/2 without TLS. It answers its name; /slow does so after `ms` milliseconds, and prints `begun`.
'use strict';
const http2 = require('http2');

const [name] = process.argv.slice(2);
const server = http2.createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  if (pathname !== '/slow') return response.end(name);
  console.log('begun');
  setTimeout(() => response.end(name), Number(searchParams.get('ms')));
});
server.listen(0, '127.0.0.1', () => console.log(`listening 127.0.0.1:${server.address().port}`));
