// A WebSocket client against a function URL: text, large binary, ping, and a clean close.
'use strict';

const assert = require('assert');
const { once } = require('events');
const WebSocket = require('ws');

const [address, host] = process.argv.slice(2);

async function main() {
  const socket = new WebSocket(`ws://${address}/chat`, { headers: { host } });
  const [greeting] = await once(socket, 'message');
  assert.strictEqual(greeting.toString(), 'hello server');

  socket.send('text');
  assert.strictEqual((await once(socket, 'message'))[0].toString(), 'text');

  const large = Buffer.alloc(200 * 1000, 'x');
  socket.send(large);
  const [echoed, isBinary] = await once(socket, 'message');
  assert.ok(isBinary && echoed.equals(large));

  socket.ping('are you there');
  assert.strictEqual((await once(socket, 'pong'))[0].toString(), 'are you there');

  socket.close(4001, 'enough');
  assert.strictEqual((await once(socket, 'close'))[0], 4001);

  // Where no server of the user's own is asked, the change is refused in words.
  const refused = new WebSocket(`ws://${address}/chat`);
  const [, response] = await once(refused, 'unexpected-response');
  assert.strictEqual(response.statusCode, 400);
  refused.on('error', () => {});
  refused.terminate();
  console.log('all right');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
