'use strict';
// The Node.js bootstrap: loads the user's module and answers calls on descriptor 3 (docs/design/wire.md).
//
// Runs as `node --max-old-space-size=N bootstrap.js`, says Ready, and serves calls until the host closes the channel: one
// at a time, or as many side by side as Load says. When told that it will wait for its function it rehearses the path that a
// Load and an Invoke take: what is compiled then is not compiled while a caller waits.
//
// What always holds:
// - A call is answered once. What a late callback, timer or rejection says after that goes to the log at most.
// - stdout and stderr are drained before an answer is written: the host has a call's output before its answer.
// - An exception nobody caught ends the process, after the calls in flight were told.

// The limit of the heap holds from the start on. Its flag only tells V8 that what Node keeps compiled was compiled under
// other flags and must not be used; without it Node's own modules load in a third of the time.
const HEAP_FLAG = '--max-old-space-size';
const heapMb = Number((process.execArgv.find((word) => word.startsWith(`${HEAP_FLAG}=`)) || '').split('=')[1]) || 0;
function forgetHeapFlag() {
  const { noDeprecation } = process;
  process.noDeprecation = true;
  try {
    // Not by way of the module `v8`, which loads half of the others first.
    process.binding('v8').setFlagsFromString(`${HEAP_FLAG}=0`);
  } catch {
    // Another Node: it starts more slowly.
  } finally {
    process.noDeprecation = noDeprecation;
  }
}
forgetHeapFlag();

const fs = require('fs');
const Module = require('module');
const net = require('net');
const os = require('os');
const path = require('path');
const { Readable } = require('stream');
const { format } = require('util');
const { pathToFileURL } = require('url');
const threads = require('worker_threads');

const CHANNEL = 3;
const LOAD = 2, INIT = 3, INVOKE = 4, CHUNK = 5, CANCEL = 6, PRE_STOP = 7, GRANT = 8, PREPARE = 9, REHEARSE = 10;
const READY = 16, HEAD = 17, END = 18, ERROR = 19, CREDIT = 20;
const MORE = 1;
const HANDLED = 'HandledInvocationError';
const UNHANDLED = 'UnhandledInvocationError';
const INITIALIZATION = 'InitializationError';

const HEADER_BYTES = 32;
const RESULT_MAX = 32 << 20;
/** Bytes of Chunk frames, headers included, that may be on their way in either direction. */
const WINDOW = 256 << 10;
const CHUNK_MAX = 64 << 10;
const MESSAGE_CHARS_MAX = 64 << 10;
const STACK_LINES_MAX = 100;
/** Answers up to this size are copied beside their header and written at once. */
const SMALL = 16 << 10;

/** How often a rehearsal goes through a load and a call: often enough for V8 to remember what it met on the way. */
const ROUNDS = 30;
/** More than the youngest part of the heap holds at first. */
const YOUNG_BYTES = 1536 << 10;

const NOTHING = Buffer.alloc(0);
const stringify = JSON.stringify;
const { stdout, stderr } = process;

const channel = new net.Socket({ fd: CHANNEL, readable: true, writable: true });
/** Where small answers are written at once: the channel's descriptor, or nowhere during a rehearsal. */
let out = CHANNEL;
/** What `Load` said. */
let loaded = { function: {}, service: {}, codePath: '/code' };
/** The user's handler. */
let handler = null;
/** The request being served, where there is one at a time. */
let current = null;
/** Requests in flight by their stream. */
const exchanges = new Map();
/** Says which request a piece of code belongs to, where there are several at a time. */
let whose = null;

/** One request in flight. */
class Exchange {
  constructor(kind, stream, token, bodyFollows) {
    this.kind = kind;
    this.stream = stream;
    this.token = token;
    this.requestId = '';
    this.answered = false;
    /** An answer in parts is under way. */
    this.begun = false;
    /** How much of an answer in parts the host takes now, and who waits for it to take more. */
    this.credit = WINDOW;
    this.onNews = null;
    this.cancelled = false;
    /** The request's body, where it follows the event. */
    this.body = bodyFollows ? new RequestBody(this) : null;
  }

  news() {
    const tell = this.onNews;
    this.onNews = null;
    if (tell !== null) tell();
  }
}

/** The body of the request that an event stands for, as it arrives. The host is told to send on as it is read. */
class RequestBody extends Readable {
  constructor(exchange) {
    super({ highWaterMark: CHUNK_MAX });
    this.exchange = exchange;
    this.arrived = [];
    this.wanted = false;
    this.taken = 0;
  }

  arrive(data, last) {
    this.arrived.push(data);
    if (last) this.arrived.push(null);
    if (this.wanted) this._read();
  }

  _read() {
    this.wanted = true;
    while (this.arrived.length > 0) {
      const data = this.arrived.shift();
      if (data === null) {
        this.push(null);
        return;
      }
      this.taken += HEADER_BYTES + data.length;
      if (this.taken >= CHUNK_MAX && !this.exchange.answered) {
        const granted = Buffer.alloc(4);
        granted.writeUInt32LE(this.taken);
        this.taken = 0;
        send(CREDIT, this.exchange.stream, this.exchange.token, NOTHING, granted);
      }
      if (data.length > 0 && !this.push(data)) {
        this.wanted = false;
        return;
      }
    }
  }
}

/** The request that the running code serves. */
function serving() {
  return whose === null ? current : whose.getStore() || null;
}

// ---- answers

/** Writes a frame. Small ones by one system call, here and now, so that even a dying process gets its answer out. */
function send(kind, stream, token, head, body) {
  const small = body.length <= SMALL;
  const first = Buffer.allocUnsafe(HEADER_BYTES + head.length + (small ? body.length : 0));
  first.fill(0, 0, HEADER_BYTES);
  first[0] = kind;
  first.writeUInt32LE(stream, 4);
  first.writeUInt32LE(head.length, 8);
  first.writeUInt32LE(body.length, 12);
  if (token !== null) token.copy(first, 16);
  if (head.length > 0) head.copy(first, HEADER_BYTES);
  if (small) body.copy(first, HEADER_BYTES + head.length);
  let rest = first;
  if (small && channel.writableLength === 0) {
    try {
      rest = first.subarray(fs.writeSync(out, first));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
    if (rest.length === 0) return;
  }
  channel.cork();
  channel.write(rest);
  if (!small) channel.write(body);
  channel.uncork();
}

/** Runs `then` once everything printed so far is in the pipe. */
function drained(then) {
  if (stdout.writableLength === 0 && stderr.writableLength === 0) return then();
  let waiting = 2;
  const one = () => { if (--waiting === 0) then(); };
  for (const stream of [stdout, stderr]) {
    if (stream.writableLength === 0 || stream.destroyed) one();
    else stream.write('', one);
  }
}

function answer(request, kind, head, body) {
  if (request.answered) return;
  request.answered = true;
  // Whoever reads on is told, rather than kept waiting for what nobody will send.
  if (request.body !== null) request.body.destroy();
  drained(() => {
    if (current === request) current = null;
    exchanges.delete(request.stream);
    send(kind, request.stream, request.token, head, body);
  });
}

function succeed(request, result) {
  if (request.answered || request.begun) return;
  const parts = request.kind === INVOKE ? inParts(result) : null;
  if (parts !== null) {
    request.begun = true;
    sendParts(request, parts).then(() => answer(request, END, NOTHING, NOTHING), (error) => fail(request, error, UNHANDLED));
    return;
  }
  let body;
  try {
    body = request.kind === INVOKE ? encode(result) : NOTHING;
  } catch (error) {
    return fail(request, error, UNHANDLED);
  }
  if (body.length > RESULT_MAX) {
    const message = `The result is ${body.length} bytes, more than the limit of ${RESULT_MAX} bytes`;
    return fail(request, worded('FunctionError', message), UNHANDLED);
  }
  answer(request, END, NOTHING, body);
}

/** Tells the caller about an error, and the log too. Initializers have an error type of their own. */
function fail(request, error, type, fatal) {
  if (request.answered) return;
  const errorType = request.kind === INIT ? INITIALIZATION : type;
  const body = describe(error, fatal);
  report(body);
  const head = fatal ? { errorType, fatal: true } : { errorType };
  answer(request, ERROR, Buffer.from(stringify(head)), Buffer.from(stringify(body)));
}

/** Head and parts of an answer in parts: a stream or any async iterable, alone or as the body of a response object. Null
 * for everything else. */
function inParts(result) {
  if (result === null || typeof result !== 'object') return null;
  if (isParts(result)) return { head: {}, parts: result };
  if (result.statusCode === undefined || !isParts(result.body)) return null;
  const { body, isBase64Encoded, ...head } = result;
  return { head, parts: body };
}

function isParts(value) {
  return value !== null && typeof value === 'object' && typeof value[Symbol.asyncIterator] === 'function';
}

/** Sends an answer in parts, each as soon as it is there and the host takes it. Leaving the loop early closes the source. */
async function sendParts(request, { head, parts }) {
  send(HEAD, request.stream, request.token, Buffer.from(stringify(head)), NOTHING);
  for await (const part of parts) {
    const data = typeof part === 'string' ? Buffer.from(part) : encodeBytes(part);
    for (let at = 0; at < data.length; at += CHUNK_MAX) {
      const piece = data.subarray(at, at + CHUNK_MAX);
      request.credit -= HEADER_BYTES + piece.length;
      while (request.credit < 0 && !request.cancelled) await new Promise((resolve) => { request.onNews = resolve; });
      if (request.cancelled) return;
      send(CHUNK, request.stream, request.token, NOTHING, piece);
    }
    if (request.cancelled) return;
  }
}

function encodeBytes(part) {
  if (Buffer.isBuffer(part)) return part;
  if (ArrayBuffer.isView(part)) return Buffer.from(part.buffer, part.byteOffset, part.byteLength);
  if (part instanceof ArrayBuffer) return Buffer.from(part);
  throw new TypeError(`A ${typeof part} is no part of an answer: it must be a string or bytes`);
}

function encode(result) {
  if (typeof result === 'string') return Buffer.from(result);
  if (ArrayBuffer.isView(result) || result instanceof ArrayBuffer) return encodeBytes(result);
  const text = stringify(result === undefined ? null : result);
  if (text === undefined) throw new TypeError(`A ${typeof result} cannot be turned into JSON`);
  return Buffer.from(text);
}

// ---- errors

/** An error this bootstrap words itself: it has no stack of the user's. */
function worded(kind, message) {
  const error = new Error(message);
  error.name = kind;
  error.stack = '';
  error.worded = true;
  return error;
}

/** The body of contract section 5.1. Must not throw, whatever the user threw. */
function describe(error, fatal) {
  try {
    if (error instanceof Error || (error && typeof error.stack === 'string')) {
      const name = String(error.name || 'Error');
      return {
        errorMessage: clipped(error.message).replace(`\n- ${__filename}`, ''),
        errorType: fatal ? `FunctionUnhandledError: ${name}` : name,
        stackTrace: usersLines(String(error.stack)).slice(0, STACK_LINES_MAX).map(clipped),
      };
    }
    const errorMessage = clipped(typeof error === 'object' ? stringify(error) : error);
    return fatal ? { errorMessage, errorType: 'FunctionUnhandledError' } : { errorMessage };
  } catch {
    return { errorMessage: 'an error that cannot be printed' };
  }
}

/** The lines of a stack down to where this bootstrap called, without Node's own. */
function usersLines(stack) {
  const lines = stack.split('\n');
  const end = lines.findIndex((line) => line.includes(`${__filename}:`));
  return (end < 0 ? lines : lines.slice(0, end)).filter((line) => line !== '' && line !== `- ${__filename}` && !/^\s+at .*\(?node:internal\//.test(line));
}

function clipped(value) {
  const text = String(value);
  return text.length > MESSAGE_CHARS_MAX ? `${text.slice(0, MESSAGE_CHARS_MAX)}…` : text;
}

function report(body) {
  const { stackTrace, errorType, errorMessage } = body;
  const fallback = errorType === undefined ? errorMessage : `${errorType}: ${errorMessage}`;
  print(stderr, 'error', stackTrace && stackTrace.length > 0 ? stackTrace.join('\n') : fallback);
}

process.on('uncaughtException', (error) => {
  // A user who listens too has decided to live on.
  if (process.listenerCount('uncaughtException') > 1) return;
  const told = [...exchanges.values()].filter((request) => !request.answered);
  if (told.length === 0) report(describe(error, true));
  for (const request of told) fail(request, error, UNHANDLED, true);
  drained(() => channel.writableLength === 0 ? process.exit(1) : channel.end(() => process.exit(1)));
});

// ---- the log

function print(stream, level, text) {
  const request = serving();
  stream.write(`${new Date().toISOString()} ${request === null ? '' : request.requestId} [${level}] ${text}\n`);
}

for (const [method, stream, level] of [
  ['log', stdout, 'verbose'], ['debug', stdout, 'verbose'], ['info', stdout, 'info'],
  ['warn', stderr, 'warn'], ['error', stderr, 'error'],
]) {
  console[method] = (...parts) => print(stream, level, format(...parts));
}
console.trace = (...parts) => {
  const trace = { name: 'Trace', message: format(...parts) };
  Error.captureStackTrace(trace, console.trace);
  print(stderr, 'error', trace.stack);
};

// A closed pipe is the host's business, not an exception in user code.
for (const stream of [stdout, stderr]) stream.on('error', () => {});

// ---- what the walls hide from Node

function patchOs() {
  const cpus = os.cpus;
  os.cpus = () => {
    const seen = cpus();
    if (seen.length > 0) return seen;
    const times = { user: 0, nice: 0, sys: 0, idle: 0, irq: 0 };
    // Node 16 has no other way to tell how many there are.
    const length = os.availableParallelism ? os.availableParallelism() : 1;
    return Array.from({ length }, () => ({ model: 'unknown', speed: 0, times: { ...times } }));
  };
  const interfaces = os.networkInterfaces;
  os.networkInterfaces = () => {
    try {
      return interfaces();
    } catch {
      return {
        lo: [{ address: '127.0.0.1', netmask: '255.0.0.0', family: 'IPv4', mac: '00:00:00:00:00:00', internal: true, cidr: '127.0.0.1/8' }],
      };
    }
  };
  const memory = () => (loaded.function.memory || 128) * (1 << 20);
  os.totalmem = memory;
  os.freemem = () => Math.max(0, memory() - process.memoryUsage.rss());
}

/** A thread's heap is limited like the process's, which the flag would have done. */
function patchThreads() {
  if (heapMb === 0) return;
  threads.Worker = class Worker extends threads.Worker {
    constructor(file, options) {
      super(file, { ...options, resourceLimits: { maxOldGenerationSizeMb: heapMb, ...options?.resourceLimits } });
    }
  };
}

// ---- loading

/** Makes the process look as the function's own, as far as that goes without its code: environment, module paths. */
function prepare(load) {
  loaded = { function: {}, service: {}, codePath: '/code', ...load };
  const env = loaded.env || {};
  const code = loaded.codePath;
  const roots = [env.NODE_PATH, path.join(code, 'node_modules'), code, '/opt/nodejs/node_modules'];
  setEnvironment({ ...env, NODE_PATH: roots.filter(Boolean).join(':') });
  Module._initPaths();
}

/** By its differences: each look at `process.env` is a call out of JavaScript. */
function setEnvironment(wanted) {
  for (const name of Object.keys(process.env)) if (!(name in wanted)) delete process.env[name];
  for (const name of Object.keys(wanted)) if (process.env[name] !== wanted[name]) process.env[name] = wanted[name];
}

/** Finds what `file.function` names. Folders are written with slashes. Answers a function, or a promise of one. */
function lookup(name) {
  const dot = name.lastIndexOf('.');
  if (dot <= 0 || dot === name.length - 1) throw worded('HandlerNotFound', `Handler '${name}' is not of the form 'file.function'`);
  const file = path.join(loaded.codePath, name.slice(0, dot));
  const attribute = name.slice(dot + 1);
  const pick = (module) => {
    const found = module?.[attribute] ?? module?.default?.[attribute];
    if (typeof found !== 'function') throw worded('HandlerNotFound', `Handler '${attribute}' missing on module '${name.slice(0, dot)}'`);
    return found;
  };
  const source = [`${file}.js`, `${file}.cjs`, `${file}.mjs`, path.join(file, 'index.js')].find(isFile);
  if (source === undefined) throw worded('ModuleNotFoundError', `Cannot find module '${file}'`);
  process.argv[1] = source;
  if (!source.endsWith('.mjs')) {
    try {
      return pick(require(source));
    } catch (error) {
      if (error?.code !== 'ERR_REQUIRE_ESM' && error?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
    }
  }
  return import(pathToFileURL(source).href).then(pick);
}

function isFile(file) {
  return fs.statSync(file, { throwIfNoEntry: false })?.isFile() === true;
}

// ---- calling

const logger = {
  log: (...parts) => console.log(...parts), debug: (...parts) => console.debug(...parts),
  info: (...parts) => console.info(...parts), warn: (...parts) => console.warn(...parts),
  error: (...parts) => console.error(...parts), setLogLevel() {},
};

function makeContext(call, request) {
  const { name, handler, memory, timeout } = loaded.function;
  const context = {
    requestId: call.requestId,
    credentials: call.credentials || { accessKeyId: '', accessKeySecret: '', securityToken: '' },
    function: { name, handler, memory, timeout },
    service: { name: '', logProject: '', logStore: '', qualifier: '', versionId: '', ...loaded.service },
    region: loaded.region,
    accountId: loaded.accountId,
    logger,
    tracing: { openTracingSpanContext: '', openTracingSpanBaggages: {}, jaegerEndpoint: '' },
    retryCount: call.retryCount,
  };
  if (request.body !== null) context.body = request.body;
  return context;
}

/** Calls `run` with `inputs` and a callback, and answers `request` with whatever comes first. */
function call(request, run, inputs) {
  const callback = (error, data) => {
    if (error !== undefined && error !== null) fail(request, error, HANDLED);
    else succeed(request, data);
  };
  let result;
  try {
    result = run(...inputs, callback);
  } catch (error) {
    return fail(request, error, UNHANDLED);
  }
  if (result !== null && typeof result === 'object' && typeof result.then === 'function') {
    result.then((value) => succeed(request, value), (error) => fail(request, error, UNHANDLED));
  } else if (run.length <= inputs.length && (result !== undefined || request.kind !== INVOKE)) {
    // It takes no callback, so what it returned is its answer.
    succeed(request, result);
  }
}

function serve(request, head, body) {
  exchanges.set(request.stream, request);
  if (whose !== null) return whose.run(request, perform, request, head, body);
  current = request;
  perform(request, head, body);
}

function perform(request, head, body) {
  let input;
  try {
    input = head.length > 0 ? JSON.parse(head.toString()) : null;
    if (request.kind !== LOAD) request.requestId = input.requestId;
    if (request.kind === INVOKE) return call(request, handler, [body, makeContext(input, request)]);
    if (request.kind === LOAD) {
      if (input !== null) prepare(input);
      process.chdir(loaded.codePath);
      const found = lookup(loaded.handler);
      const accept = (value) => {
        handler = value;
        if (loaded.concurrency > 1) whose = new (require('async_hooks').AsyncLocalStorage)();
        succeed(request);
      };
      if (typeof found === 'function') return accept(found);
      return void found.then(accept, (error) => fail(request, error, UNHANDLED));
    }
    const hook = lookup(request.kind === INIT ? loaded.initializer : loaded.preStop);
    const run = (value) => call(request, value, [makeContext(input, request)]);
    if (typeof hook === 'function') return run(hook);
    return void hook.then(run).catch((error) => fail(request, error, UNHANDLED));
  } catch (error) {
    fail(request, error, UNHANDLED);
  }
}

// ---- the wire

/** Cuts the stream into frames. A frame that came whole is served without being copied together. */
function makeReader(onFrame) {
  let held = [];
  let size = 0;
  let wanted = HEADER_BYTES;
  return (chunk) => {
    if (size > 0) {
      held.push(chunk);
      size += chunk.length;
      if (size < wanted) return;
      chunk = Buffer.concat(held, size);
      held = [];
      size = 0;
    }
    let at = 0;
    while (chunk.length - at >= HEADER_BYTES) {
      const headBytes = chunk.readUInt32LE(at + 8);
      wanted = HEADER_BYTES + headBytes + chunk.readUInt32LE(at + 12);
      if (chunk.length - at < wanted) break;
      const body = at + HEADER_BYTES + headBytes;
      const frame = {
        kind: chunk[at], flags: chunk[at + 1], stream: chunk.readUInt32LE(at + 4), token: chunk.subarray(at + 16, at + HEADER_BYTES),
        head: chunk.subarray(at + HEADER_BYTES, body), body: chunk.subarray(body, at + wanted),
      };
      at += wanted;
      wanted = HEADER_BYTES;
      onFrame(frame);
    }
    if (at < chunk.length) {
      held = [chunk.subarray(at)];
      size = chunk.length - at;
    }
  };
}

/** Frames that came during a rehearsal. */
let held = null;

function receive(frame) {
  if (held === null) onFrame(frame);
  else held.push(frame);
}

function onFrame({ kind, flags, stream, token, head, body }) {
  if (kind === LOAD || kind === INIT || kind === INVOKE || kind === PRE_STOP) {
    return serve(new Exchange(kind, stream, token, (flags & MORE) !== 0), head, body);
  }
  if (kind === PREPARE) return prepare(JSON.parse(head.toString()));
  if (kind === REHEARSE) return void rehearse();
  if (kind !== CHUNK && kind !== CANCEL && kind !== GRANT) process.exit(1);
  const request = exchanges.get(stream);
  // It may have been answered while this was on its way.
  if (request === undefined) return;
  if (kind === CHUNK && request.body !== null) request.body.arrive(body, (flags & MORE) === 0);
  if (kind === GRANT) request.credit += body.readUInt32LE(0);
  if (kind === CANCEL) {
    request.cancelled = true;
    if (request.body !== null) request.body.destroy(new Error('The caller went away'));
  }
  request.news();
}

// ---- before there is a function

/** Loads a function and serves calls before there are any, the way they will come. Leaves no trace. */
async function rehearse() {
  const source = path.join(__dirname, 'rehearsal.js');
  const before = { loaded, folder: process.cwd(), program: process.argv[1], env: { ...process.env }, children: module.children.length };
  const frame = (kind, body, event) => onFrame({ kind, flags: 0, stream: 0, token: NOTHING, head: Buffer.from(stringify(body)), body: Buffer.from(event) });
  const load = {
    codePath: __dirname, handler: 'rehearsal.handler', runtime: 'nodejs20', env: { ...before.env },
    function: { name: 'f', handler: 'h', memory: 128, timeout: 3 }, service: { name: '' }, accountId: '0', region: 'r', instanceId: 'c-0',
  };
  for (let i = 0; i < 16; i++) load.env[`DUNLIN_${i}`] = 'x';
  held = [];
  try {
    out = fs.openSync('/dev/null', 'w');
    for (let i = 0; i < ROUNDS; i++) {
      frame(PREPARE, load, '');
      onFrame({ kind: LOAD, flags: 0, stream: 0, token: NOTHING, head: NOTHING, body: NOTHING });
      frame(INVOKE, { requestId: '1-0', deadlineMs: 0, retryCount: 0 }, '{"key":"value"}');
      for (let turn = 0; turn < 100 && exchanges.size > 0; turn++) await null;
      delete require.cache[source];
    }
    // What else many functions do.
    format('%s %d %j', new Date().toISOString(), 1, { a: [1] }, new Error('warm').stack);
    stdout.write('');
    // The collection that has come near would otherwise come while a caller waits.
    for (let bytes = 0; bytes < YOUNG_BYTES; bytes += 1024) new Array(128);
    // Takes turns of the loop: nothing is done afterwards, for a function may have come meanwhile and replaced what was there.
    import('data:text/javascript,export const handler = 1');
  } catch {
    // A slower first call is all that comes of it.
  } finally {
    if (out !== CHANNEL) fs.closeSync(out);
    out = CHANNEL;
    handler = current = null;
    exchanges.clear();
    process.chdir(before.folder);
    for (const key of Object.keys(Module._pathCache)) if (key.includes(source)) delete Module._pathCache[key];
    module.children.length = before.children;
    process.argv[1] = before.program;
    setEnvironment(before.env);
    loaded = before.loaded;
    Module._initPaths();
    const frames = held;
    held = null;
    frames.forEach(receive);
  }
}

patchOs();
patchThreads();
Module.syncBuiltinESMExports();
channel.on('data', makeReader(receive));
channel.on('end', () => process.exit(0));
channel.on('error', () => process.exit(0));
send(READY, 0, null, Buffer.from(stringify({ runtime: `nodejs ${process.versions.node}` })), NOTHING);
