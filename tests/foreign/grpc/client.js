// The cases on grpc-js; client.py has the same on grpcio. Usage: node client.js ADDRESS CA|- CASE…
//
// Prints a line of JSON for each case: its name, and what was wrong or null.
'use strict';
const { randomUUID } = require('crypto');
const { once } = require('events');
const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const MESSAGES = 20_000;
const ROUNDS = 3_000;
const MESSAGE = 'Größe überschritten: 100 %, „schon wieder“ ✓';
const RETRIES = JSON.stringify({
  methodConfig: [{
    name: [{}],
    retryPolicy: {
      maxAttempts: 3,
      initialBackoff: '0.05s',
      maxBackoff: '0.1s',
      backoffMultiplier: 1,
      retryableStatusCodes: ['UNAVAILABLE'],
    },
  }],
});

class Failed extends Error {}

function equal(seen, wanted, what) {
  const [a, b] = [seen, wanted].map((value) => (Buffer.isBuffer(value) ? value.toString('latin1') : JSON.stringify(value)));
  if (a !== b) throw new Failed(`${what}: ${String(a).slice(0, 200)}, not ${String(b).slice(0, 200)}`);
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const same = (value) => value;
const inSeconds = (seconds) => ({ deadline: Date.now() + 1000 * seconds });
const path = (name) => (name.startsWith('/') ? name : `/foreign.Trial/${name}`);

class Client {
  constructor(address, ca, options = {}) {
    [this.address, this.ca] = [address, ca];
    this.stub = this.open(options);
  }

  open(options) {
    const credentials = this.ca
      ? grpc.credentials.createSsl(fs.readFileSync(this.ca))
      : grpc.credentials.createInsecure();
    const all = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1, ...options };
    if (this.ca) all['grpc.ssl_target_name_override'] = 'localhost';
    return new grpc.Client(this.address, credentials, all);
  }

  another(options) {
    return new Client(this.address, this.ca, options);
  }

  /// Resolves to {value} or {error}, with the metadata of both ends.
  unary(name, request, { metadata = new grpc.Metadata(), seconds = 60 } = {}) {
    return new Promise((done) => {
      const ended = {};
      const call = this.stub.makeUnaryRequest(path(name), same, same, request, metadata, inSeconds(seconds),
        (error, value) => { Object.assign(ended, { error, value }); });
      call.on('metadata', (initial) => { ended.initial = initial; });
      call.on('status', (status) => done({ ...ended, trailing: status.metadata }));
    });
  }

  async answer(name, request, options) {
    const { error, value } = await this.unary(name, request, options);
    if (error) throw error;
    return value;
  }

  up(name, { seconds = 60 } = {}) {
    let call;
    const answer = new Promise((done, failed) => {
      call = this.stub.makeClientStreamRequest(path(name), same, same, new grpc.Metadata(), inSeconds(seconds),
        (error, value) => (error ? failed(error) : done(value)));
    });
    return { call, answer };
  }

  down(name, request, { metadata = new grpc.Metadata(), seconds = 60 } = {}) {
    return this.stub.makeServerStreamRequest(path(name), same, same, request, metadata, inSeconds(seconds));
  }

  both(name, { metadata = new grpc.Metadata(), seconds = 60 } = {}) {
    return this.stub.makeBidiStreamRequest(path(name), same, same, metadata, inSeconds(seconds));
  }

  async expectSeen(tag, wanted) {
    const ends = Date.now() + 10_000;
    for (;;) {
      const state = (await this.answer('Seen', Buffer.from(tag))).toString();
      if (state === wanted) return;
      if (Date.now() > ends) throw new Failed(`the server saw the call ${state}, not ${wanted}`);
      await pause(20);
    }
  }
}

async function send(call, count, message) {
  for (let n = 0; n < count; n++) {
    if (!call.write(message(n))) await once(call, 'drain');
  }
  call.end();
}

async function all(call) {
  const messages = [];
  for await (const message of call) messages.push(message);
  return messages;
}

/// One message after another, awaited.
function reader(call) {
  const iterator = call[Symbol.asyncIterator]();
  return async () => {
    const { done, value } = await iterator.next();
    return done ? null : value;
  };
}

const tag = () => {
  const metadata = new grpc.Metadata();
  const id = randomUUID();
  metadata.set('x-tag', id);
  return [id, metadata];
};

const cases = {
  async unary(client) {
    for (const size of [0, 1, 100, 70_000]) {
      equal(await client.answer('Echo', Buffer.alloc(size, 'x')), Buffer.alloc(size, 'x'), `${size} bytes`);
    }
    const { call, answer } = client.up('Collect');
    call.end();
    equal(await answer, Buffer.from('0 0'), 'an empty stream');
    equal(await all(client.down('Count', Buffer.from('0 8'))), [], 'an empty answer');
    const empty = client.both('Converse');
    empty.end();
    equal(await all(empty), [], 'empty both ways');
  },

  async server_stream(client) {
    let n = 0;
    for await (const message of client.down('Count', Buffer.from(`${MESSAGES} 32`))) {
      equal(message.subarray(0, 8).toString(), String(n).padStart(8, '0'), `message ${n}`);
      equal(message.length, 32, 'bytes');
      n += 1;
    }
    equal(n, MESSAGES, 'messages');
  },

  async client_stream(client) {
    const { call, answer } = client.up('Collect');
    await send(call, MESSAGES, (n) => Buffer.from(String(n).padStart(8, '0')));
    equal((await answer).toString(), `${MESSAGES} ${8 * MESSAGES}`, 'messages and bytes');
  },

  async both_streams(client) {
    const call = client.both('Converse');
    const sent = send(call, MESSAGES, (n) => Buffer.from(String(n)));
    let n = 0;
    for await (const message of call) {
      equal(message.toString(), String(n), `message ${n}`);
      n += 1;
    }
    await sent;
    equal(n, MESSAGES, 'messages');
  },

  async ping_pong(client, wait = 0) {
    const call = client.both('Converse');
    const next = reader(call);
    for (let n = 0; n < ROUNDS; n++) {
      call.write(Buffer.from(String(n)));
      equal(String(await next()), String(n), `round ${n}`);
      if (wait) await pause(wait);
    }
    call.end();
    equal(await next(), null, 'messages after the last');
  },

  async ping_pong_paced(client) {
    await cases.ping_pong(client, 1);
  },

  async headers_first(client) {
    // The head of the answer comes before any message does.
    const call = client.both('Converse', { seconds: 10 });
    const head = once(call, 'metadata');
    const next = reader(call);
    equal((await head)[0].get('x-begun'), ['yes'], 'x-begun');
    call.write(Buffer.from('first'));
    equal(await next(), Buffer.from('first'), 'the answer');
    call.end();
    equal(await next(), null, 'messages after the last');
  },

  async statuses(client) {
    const details = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    for (let code = 1; code <= 16; code++) {
      for (const after of [0, 3]) {
        const wanted = { code, message: MESSAGE, after, details: details.toString('hex') };
        const what = `status ${code} after ${after} messages`;
        const got = [];
        let error = null;
        try {
          for await (const message of client.down('Fail', Buffer.from(JSON.stringify(wanted)))) got.push(message);
        } catch (caught) {
          error = caught;
        }
        if (error === null) throw new Failed(`${what}: no error`);
        equal([error.code, error.details], [code, MESSAGE], what);
        equal(error.metadata.get('grpc-status-details-bin')[0], details, `${what}: details`);
        equal(error.metadata.get('x-why'), ['asked'], `${what}: x-why`);
        equal(got.length, after, `${what}: messages before it`);
      }
    }
  },

  async unimplemented(client) {
    const { error } = await client.unary('NoSuch', Buffer.alloc(0));
    equal(error?.code, grpc.status.UNIMPLEMENTED, 'status');
  },

  async metadata(client) {
    const metadata = new grpc.Metadata();
    metadata.add('x-echo-text', 'plain, with: signs');
    metadata.add('x-echo-many', 'first');
    metadata.add('x-echo-many', 'second');
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    for (const n of [0, 1, 2, 3, 256]) metadata.add(`x-echo-${n}-bin`, bytes.subarray(256 - n));
    const { error, initial, trailing } = await client.unary('Echo', Buffer.alloc(0), { metadata, seconds: 10 });
    if (error) throw error;
    for (const [what, got, prefix] of [['initial', initial, 'x-echo'], ['trailing', trailing, 'x-trailing']]) {
      equal(got.get(`${prefix}-text`).join(', '), 'plain, with: signs', `${what}: text`);
      // Several lines of one name may arrive as one (RFC 9110 §5.2).
      equal(got.get(`${prefix}-many`).join(', '), 'first, second', `${what}: many`);
      for (const n of [0, 1, 2, 3, 256]) {
        equal(got.get(`${prefix}-${n}-bin`)[0], bytes.subarray(256 - n), `${what}: ${n} bytes`);
      }
    }
  },

  async compression(client) {
    const gzip = client.another({ 'grpc.default_compression_algorithm': 2 });
    const text = Buffer.from('the same again and again, '.repeat(40_000));
    equal(await gzip.answer('Echo', text), text, 'the message');
    const call = gzip.both('Converse');
    const sent = send(call, 100, (n) => Buffer.from(`${n} `.repeat(100)));
    let n = 0;
    for await (const message of call) {
      equal(message.toString(), `${n} `.repeat(100), `message ${n}`);
      n += 1;
    }
    await sent;
    equal(n, 100, 'messages');
    gzip.stub.close();
  },

  async deadline(client) {
    const [id, metadata] = tag();
    const next = reader(client.down('Sleep', Buffer.alloc(0), { metadata, seconds: 0.5 }));
    const left = Number(await next());
    // Clocks are read in whole milliseconds, rounded up or down.
    if (!(left > 0 && left <= 505)) throw new Failed(`the server was given ${left} ms of 500`);
    const error = await next().then(() => null, (caught) => caught);
    equal(error?.code, grpc.status.DEADLINE_EXCEEDED, 'status');
    await client.expectSeen(id, 'cancelled');
  },

  async cancellation(client) {
    const [id, metadata] = tag();
    const call = client.down('Sleep', Buffer.alloc(0), { metadata });
    call.on('error', () => {});
    await once(call, 'data');
    call.cancel();
    await client.expectSeen(id, 'cancelled');
    // While the client still has something to say.
    const [other, more] = tag();
    const talk = client.both('Converse', { metadata: more });
    talk.on('error', () => {});
    talk.write(Buffer.from('first'));
    await once(talk, 'data');
    talk.cancel();
    await client.expectSeen(other, 'cancelled');
  },

  async large(client) {
    const message = Buffer.alloc(64 << 20, '0123456789abcdef');
    if (!(await client.answer('Echo', message)).equals(message)) throw new Failed('64 MiB came back changed');
  },

  async concurrent(client) {
    const calls = Array.from({ length: 1_000 }, () => client.answer('Delayed', Buffer.from('50')));
    for (const answer of await Promise.all(calls)) equal(answer, Buffer.from('50'), 'answer');
  },

  async refused_stream(client) {
    // The status comes while the client is sending, and must not be lost to that.
    for (let n = 0; n < 20; n++) {
      const { call, answer } = client.up('Refuse');
      let over = false;
      const error = answer.then(() => null, (caught) => caught).finally(() => { over = true; });
      call.write(Buffer.alloc(1000, 'x'));
      while (!over) {
        call.write(Buffer.alloc(10_000, 'x'));
        await pause(0);
      }
      equal([(await error)?.code, (await error)?.details], [grpc.status.RESOURCE_EXHAUSTED, 'enough'], 'status');
    }
  },

  async keepalive(client) {
    const patient = client.another({
      'grpc.keepalive_time_ms': 100,
      'grpc.keepalive_timeout_ms': 3000,
      'grpc.keepalive_permit_without_calls': 1,
    });
    const call = patient.both('Converse');
    const next = reader(call);
    for (let n = 0; n < 3; n++) {
      call.write(Buffer.from('here'));
      equal(await next(), Buffer.from('here'), 'the answer');
      await pause(1500);
    }
    call.end();
    equal(await next(), null, 'messages after the last');
    await pause(1500);
    equal(patient.stub.getChannel().getConnectivityState(false), grpc.connectivityState.READY, 'state');
    equal(await patient.answer('Echo', Buffer.from('after')), Buffer.from('after'), 'the answer after a pause');
    patient.stub.close();
  },

  async health(client) {
    equal(await client.answer('/grpc.health.v1.Health/Check', Buffer.alloc(0)), Buffer.from([8, 1]), 'health');
    const { error } = await client.unary('/grpc.health.v1.Health/Check', Buffer.from('\x0a\x04none'));
    equal(error?.code, grpc.status.NOT_FOUND, 'status');
    const watch = client.down('/grpc.health.v1.Health/Watch', Buffer.alloc(0), { seconds: 20 });
    const next = reader(watch);
    equal(await next(), Buffer.from([8, 1]), 'watched health');
    for (const status of [2, 1]) {
      await client.answer('SetHealth', Buffer.from([8, status]));
      equal(await next(), Buffer.from([8, status]), 'watched health');
    }
    watch.on('error', () => {});
    watch.cancel();
  },

  async pushback(client) {
    const retrying = client.another({ 'grpc.enable_retries': 1, 'grpc.service_config': RETRIES });
    equal(await retrying.answer('Pushback', Buffer.from(`${randomUUID()} 20`)), Buffer.from('2 1'),
      'tries, and tries before');
    const id = randomUUID();
    const { error } = await retrying.unary('Pushback', Buffer.from(`${id} -1`));
    equal([error?.code, error?.details], [grpc.status.UNAVAILABLE, 'later'], 'status');
    equal(error.metadata.get('grpc-retry-pushback-ms'), ['-1'], 'grpc-retry-pushback-ms');
    equal(await client.answer('Attempts', Buffer.from(id)), Buffer.from('1'), 'tries');
    retrying.stub.close();
  },
};

/// Calls without a pause, eight at a time, until standard input ends; prints how many ended how.
async function steady(client) {
  const counts = {};
  let over = false;
  process.stdin.resume();
  process.stdin.on('end', () => { over = true; });
  console.log(JSON.stringify({ case: 'steady', running: true }));
  await Promise.all(Array.from({ length: 8 }, async () => {
    while (!over) {
      const { error } = await client.unary('Delayed', Buffer.from('2'), { seconds: 20 });
      const ended = error ? `${grpc.status[error.code]}: ${error.details}` : 'OK';
      counts[ended] = (counts[ended] ?? 0) + 1;
    }
  }));
  console.log(JSON.stringify({ case: 'steady', counts }));
}

async function main() {
  const [address, ca, ...names] = process.argv.slice(2);
  const client = new Client(address, ca === '-' ? null : ca);
  for (const name of names) {
    if (name === 'steady') {
      await steady(client);
      continue;
    }
    let error = null;
    try {
      await cases[name](client);
    } catch (caught) {
      error = caught instanceof Failed ? caught.message : `${caught.code ?? caught.name}: ${caught.details ?? caught.stack}`;
    }
    console.log(JSON.stringify({ case: name, error }));
  }
  process.exit(0);
}

main();
