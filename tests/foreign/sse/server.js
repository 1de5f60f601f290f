// A node server of event streams, which other requests steer; app.py is the same for gunicorn. `tag` names the stream:
// /events is one, /go sends it an event (of `size` bytes), /burst sends `count`, /end ends it, /break cuts it, and
// everything else says what became of it.
'use strict';
const http = require('http');

const streams = new Map();

function stream(tag) {
  if (!streams.has(tag)) streams.set(tag, { response: null, left: false, sent: 0 });
  return streams.get(tag);
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const tag = url.searchParams.get('tag');
  const state = stream(tag);
  switch (url.pathname) {
    case '/events':
      state.response = response;
      response.on('close', () => { state.left = !response.writableFinished; });
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.flushHeaders();
      return;
    case '/go': {
      // With a size, one event of that many bytes; else the next of the stream.
      const size = Number(url.searchParams.get('size') ?? 0);
      state.response?.write(`id: ${state.sent}\ndata: ${'x'.repeat(size)}\n\n`);
      state.sent += 1;
      response.end('sent');
      return;
    }
    case '/burst':
      for (let n = 0; n < Number(url.searchParams.get('count')); n++) state.response.write(`data: ${n}\n\n`);
      response.end('sent');
      return;
    case '/end':
      state.response.end();
      response.end('ended');
      return;
    case '/break':
      state.response.socket.destroy();
      response.end('broken');
      return;
    default:
      response.end(JSON.stringify({ open: state.response !== null, left: state.left }));
  }
});
server.listen(0, '127.0.0.1', () => console.log(`listening 127.0.0.1:${server.address().port}`));
