'use strict';
// A worker that answers HTTP itself: what a platform is compared with.

const cluster = require('cluster');
const http = require('http');

const [port, count] = process.argv.slice(2).map(Number);
const handler = async () => 'hello';

if (cluster.isPrimary && count > 1) {
  for (let n = 0; n < count; n += 1) cluster.fork();
  process.on('SIGTERM', () => process.exit(0));
} else {
  http
    .createServer(async (request, response) => {
      const body = await handler(request);
      response.setHeader('content-length', body.length);
      response.end(body);
    })
    .listen(port, '127.0.0.1');
}
