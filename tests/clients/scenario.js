'use strict';
// The vendor's Node SDK, unmodified, against a running platform.
// Usage: scenario.js CREDENTIALS_JSON, with NODE_PATH at the SDK. Prints `N passed, N failed` at the end.

const http = require('http');
const assert = require('assert');
const { ECHO, client, create, fc, host, invoke, packageOf, refused, run, sdk } = require('./common.js');

run({
  async 'a function is created, read, called, updated, listed and deleted'() {
    const created = await create('node-echo', ECHO, { memorySize: 256, timeout: 10 });
    assert.strictEqual(created.memorySize, 256);
    const read = (await sdk.getFunction('node-echo', new fc.GetFunctionRequest({}))).body;
    assert.deepStrictEqual(JSON.parse(JSON.stringify(read)), JSON.parse(JSON.stringify(created)));
    const reply = await invoke('node-echo', 'hello');
    assert.strictEqual(reply.status, 200);
    assert.strictEqual(reply.body.toString(), 'hello');
    const code = new fc.InputCodeLocation({ zipFile: packageOf({ 'index.js': 'exports.handler = async () => "second";\n' }) });
    await sdk.updateFunction('node-echo', new fc.UpdateFunctionRequest({ body: new fc.UpdateFunctionInput({ code }) }));
    assert.strictEqual((await invoke('node-echo', '')).body.toString(), 'second');
    const list = (await sdk.listFunctions(new fc.ListFunctionsRequest({ prefix: 'node-' }))).body.functions;
    assert.deepStrictEqual(list.map((f) => f.functionName), ['node-echo']);
    await sdk.deleteFunction('node-echo');
    await refused('FunctionNotFound', sdk.getFunction('node-echo', new fc.GetFunctionRequest({})));
  },
  async 'a large event goes both ways, chunked'() {
    await create('node-large', ECHO, { memorySize: 512, timeout: 20 });
    const event = 'x'.repeat(6 << 20);
    const reply = await invoke('node-large', event);
    assert.ok(reply.body.toString() === event, `${reply.body.length} bytes`);
    await sdk.deleteFunction('node-large');
  },
  async 'a handled error has its own type'() {
    await create('node-error', { 'index.js': 'exports.handler = (e, c, callback) => callback(new Error("oops"));\n' });
    const reply = await invoke('node-error', '');
    assert.strictEqual(reply.headers['x-fc-error-type'], 'HandledInvocationError');
    const error = JSON.parse(reply.body);
    assert.strictEqual(error.errorMessage, 'oops');
    assert.strictEqual(error.errorType, 'Error');
    assert.ok(error.stackTrace[0].startsWith('Error: oops'), reply.body.toString());
    await sdk.deleteFunction('node-error');
  },
  async 'the log tail carries console lines with the request id'() {
    await create('node-logs', { 'index.js': 'exports.handler = async () => { console.log("a line"); return "x"; };\n' });
    const reply = await invoke('node-logs', '', { xFcLogType: 'Tail' });
    const tail = Buffer.from(reply.headers['x-fc-log-result'], 'base64').toString();
    assert.match(tail, new RegExp(`Z ${reply.headers['x-fc-request-id']} \\[verbose\\] a line`));
    await sdk.deleteFunction('node-logs');
  },
  async 'an HTTP trigger answers on its URL'() {
    await create('node-http', { 'index.js': 'exports.handler = async (event) => ({ statusCode: 200, headers: { "x-a": "1" }, body: JSON.parse(event).queryParameters.q });\n' });
    const body = new fc.CreateTriggerInput({
      triggerName: 'web', triggerType: 'http', triggerConfig: JSON.stringify({ authType: 'anonymous', methods: ['GET'] }),
    });
    const trigger = (await sdk.createTrigger('node-http', new fc.CreateTriggerRequest({ body }))).body;
    const text = await new Promise((resolve, reject) => {
      const [address, port] = host.split(':');
      http.get({ host: address, port, path: '/?q=answer', headers: { Host: new URL(trigger.httpTrigger.urlInternet).host } }, (reply) => {
        reply.setEncoding('utf8');
        let data = '';
        reply.on('data', (part) => (data += part));
        reply.on('end', () => resolve(data));
      }).on('error', reject);
    });
    assert.strictEqual(text, 'answer');
    await sdk.deleteTrigger('node-http', 'web');
    await sdk.deleteFunction('node-http');
  },
  async 'refusals carry the contract\'s codes'() {
    await refused('SignatureNotMatch', client({ accessKeySecret: 'y'.repeat(30) }).listFunctions(new fc.ListFunctionsRequest({})));
    await refused('InvalidArgument', create('node-bad', ECHO, { timeout: 0 }));
    await refused('FunctionNotFound', invoke('absent', ''));
  },
});
