// Uploads with node's own client, over HTTP/1 (http:) or HTTP/2 (h2c:). Usage: node client.js URL BYTES COUNT
//
// Prints how many uploads ended how, as JSON: the status with "whole" or "cut", or the error's code.
'use strict';
const http = require('http');
const http2 = require('http2');

const [url, bytes, count] = process.argv.slice(2);
const body = Buffer.alloc(Number(bytes), 'x');

function once1() {
  return new Promise((done) => {
    const request = http.request(url, { method: 'POST', headers: { 'content-length': body.length } }, (response) => {
      let text = '';
      response.on('data', (piece) => { text += piece; });
      response.on('error', () => {});
      response.on('close', () => done(`${response.statusCode} ${text === 'early answer\n' ? 'whole' : 'cut'}`));
    });
    request.on('error', (error) => done(error.code));
    // Once the answer is read, nobody else listens for what becomes of the upload.
    request.on('socket', (socket) => socket.on('error', () => {}));
    request.end(body);
  });
}

function once2() {
  return new Promise((done) => {
    const target = new URL(url.replace('h2c:', 'http:'));
    // What it has yet to send counts, and by default it refuses the answer when that is more than 10 MB.
    const session = http2.connect(target.origin, { maxSessionMemory: 100 });
    let [status, text] = [0, ''];
    session.on('error', () => {});
    const stream = session.request({ ':method': 'POST', ':path': target.pathname + target.search, 'content-length': body.length });
    stream.on('response', (head) => { status = head[':status']; });
    stream.on('data', (piece) => { text += piece; });
    stream.on('error', () => {});
    stream.on('close', () => {
      session.destroy();
      done(status ? `${status} ${text === 'early answer\n' ? 'whole' : 'cut'}` : `reset ${stream.rstCode}`);
    });
    stream.end(body);
  });
}

const late = () => new Promise((done) => setTimeout(() => done('nothing'), 5_000));

async function main() {
  const counts = {};
  for (let n = 0; n < Number(count); n++) {
    const ended = await Promise.race([url.startsWith('h2c:') ? once2() : once1(), late()]);
    counts[ended] = (counts[ended] ?? 0) + 1;
  }
  console.log(JSON.stringify(counts));
  process.exit(0);
}

main();
