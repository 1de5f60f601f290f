// The trial service on grpc-js; server.py is the same on grpcio, and README.md says what each method does.
'use strict';
const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const arguments_ = Object.fromEntries(
  process.argv.slice(2).join(' ').split('--').filter(Boolean).map((pair) => pair.trim().split(' ')));
const [SERVING] = [Buffer.from([8, 1])];

// What became of the calls that had a tag, of those that are tried again, and who waits for the health to change.
const seen = new Map();
const attempts = new Map();
const health = { status: SERVING, watchers: new Set() };

const bytes = { serialize: (value) => value, deserialize: (value) => value };

/// Remembers how a call with `x-tag` ends.
function tagged(call) {
  const [tag] = call.metadata.get('x-tag');
  seen.set(tag, 'running');
  call.on('cancelled', () => seen.set(tag, 'cancelled'));
  return () => seen.get(tag) === 'running' && seen.set(tag, 'finished');
}

function copied(from, prefix, to) {
  const copy = new grpc.Metadata();
  for (const key of Object.keys(from.getMap())) {
    if (key.startsWith(prefix)) {
      for (const value of from.get(key)) copy.add(to + key.slice(prefix.length), value);
    }
  }
  return copy;
}

/// Writes one message after the other, as fast as they are taken.
function writeAll(call, count, message) {
  let n = 0;
  const more = () => {
    while (n < count) {
      if (!call.write(message(n++))) {
        call.once('drain', more);
        return;
      }
    }
    call.end();
  };
  more();
}

const trial = {
  Echo: ['unary', (call, done) => {
    const asked = copied(call.metadata, 'x-echo', 'x-echo');
    if (Object.keys(asked.getMap()).length === 0) return done(null, call.request);
    call.sendMetadata(asked);
    done(null, call.request, copied(call.metadata, 'x-echo', 'x-trailing'));
  }],
  Delayed: ['unary', (call, done) => setTimeout(() => done(null, call.request), Number(call.request))],
  Collect: ['up', (call, done) => {
    let [count, size] = [0, 0];
    call.on('data', (message) => { count += 1; size += message.length; });
    call.on('end', () => done(null, Buffer.from(`${count} ${size}`)));
  }],
  Count: ['down', (call) => {
    const [number, size] = call.request.toString().split(' ').map(Number);
    writeAll(call, number, (n) => {
      const message = Buffer.alloc(size);
      message.write(String(n).padStart(8, '0'));
      return message;
    });
  }],
  Converse: ['both', (call) => {
    const finished = tagged(call);
    const begun = new grpc.Metadata();
    begun.set('x-begun', 'yes');
    call.sendMetadata(begun);
    call.on('data', (message) => {
      if (!call.write(message)) {
        call.pause();
        call.once('drain', () => call.resume());
      }
    });
    call.on('end', () => { finished(); call.end(); });
  }],
  Fail: ['down', (call) => {
    const wanted = JSON.parse(call.request);
    for (let n = 0; n < wanted.after; n++) call.write(Buffer.from(String(n)));
    const metadata = new grpc.Metadata();
    metadata.set('grpc-status-details-bin', Buffer.from(wanted.details, 'hex'));
    metadata.set('x-why', 'asked');
    call.emit('error', { code: wanted.code, details: wanted.message, metadata });
  }],
  // Ends after the first message, whatever the client still sends.
  Refuse: ['up', (call, done) => {
    call.once('data', () => done({ code: grpc.status.RESOURCE_EXHAUSTED, details: 'enough' }));
  }],
  Sleep: ['down', (call) => {
    tagged(call);
    const deadline = call.getDeadline();
    const left = deadline === Infinity ? 0 : deadline - Date.now();
    call.write(Buffer.from(String(Math.round(left))));
  }],
  Seen: ['unary', (call, done) => done(null, Buffer.from(seen.get(call.request.toString()) ?? 'unknown'))],
  // Fails until the request's second try, and says when that is wanted.
  Pushback: ['unary', (call, done) => {
    const [tag, pause] = call.request.toString().split(' ');
    attempts.set(tag, (attempts.get(tag) ?? 0) + 1);
    if (attempts.get(tag) === 1) {
      const metadata = new grpc.Metadata();
      metadata.set('grpc-retry-pushback-ms', pause);
      return done({ code: grpc.status.UNAVAILABLE, details: 'later', metadata });
    }
    const before = call.metadata.get('grpc-previous-rpc-attempts').join('');
    done(null, Buffer.from(`${attempts.get(tag)} ${before}`));
  }],
  Attempts: ['unary', (call, done) => done(null, Buffer.from(String(attempts.get(call.request.toString()) ?? 0)))],
  SetHealth: ['unary', (call, done) => {
    health.status = call.request;
    for (const watcher of health.watchers) watcher.write(health.status);
    done(null, Buffer.alloc(0));
  }],
};

const checks = {
  Check: ['unary', (call, done) => {
    if (call.request.length > 0) return done({ code: grpc.status.NOT_FOUND, details: 'unknown service' });
    done(null, health.status);
  }],
  Watch: ['down', (call) => {
    health.watchers.add(call);
    call.on('cancelled', () => health.watchers.delete(call));
    call.write(health.status);
  }],
};

function add(server, service, methods) {
  const definition = {};
  const implementation = {};
  for (const [name, [kind, handler]] of Object.entries(methods)) {
    definition[name] = {
      path: `/${service}/${name}`,
      requestStream: kind === 'up' || kind === 'both',
      responseStream: kind === 'down' || kind === 'both',
      requestSerialize: bytes.serialize,
      requestDeserialize: bytes.deserialize,
      responseSerialize: bytes.serialize,
      responseDeserialize: bytes.deserialize,
    };
    implementation[name] = handler;
  }
  server.addService(definition, implementation);
}

const server = new grpc.Server({
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc.default_compression_algorithm': 2,
  // Pings of the server's own, which the proxy has to answer.
  'grpc.keepalive_time_ms': 1000,
  'grpc.keepalive_timeout_ms': 2000,
});
add(server, 'foreign.Trial', trial);
add(server, 'grpc.health.v1.Health', checks);
const credentials = arguments_.cert
  ? grpc.ServerCredentials.createSsl(null, [{
    cert_chain: fs.readFileSync(arguments_.cert), private_key: fs.readFileSync(arguments_.key) }])
  : grpc.ServerCredentials.createInsecure();
server.bindAsync(`127.0.0.1:${arguments_.port ?? 0}`, credentials, (error, port) => {
  if (error) throw error;
  console.log(`listening 127.0.0.1:${port}`);
});
process.on('SIGTERM', () => {
  // What still runs after a while is cut.
  setTimeout(() => server.forceShutdown(), 5000).unref();
  server.tryShutdown(() => process.exit(0));
});
