// A node server that answers an upload before it has read it; the query says after how many bytes, and how it goes on.
'use strict';
const http = require('http');

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  let left = Number(url.searchParams.get('read') ?? 0);
  const answer = () => {
    if (url.searchParams.has('close')) response.setHeader('connection', 'close');
    response.statusCode = 413;
    response.end('early answer\n', () => {
      if (url.searchParams.has('destroy')) request.socket.destroy();
    });
  };
  if (left === 0) return answer();
  request.on('data', (piece) => {
    if (left > 0 && (left -= piece.length) <= 0) answer();
  });
});
server.listen(0, '127.0.0.1', () => console.log(`listening 127.0.0.1:${server.address().port}`));
