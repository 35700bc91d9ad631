// A server of the user's own, for tests of what passes through to it.
'use strict';

const http = require('http');
const { Readable } = require('stream');
const { WebSocketServer } = require('ws');

let release = [];
let hanging = 0;
let gone = 0;

function* zeros(count) {
  const piece = Buffer.alloc(64 * 1024);
  for (let left = count; left > 0; left -= piece.length) {
    yield left >= piece.length ? piece : piece.subarray(0, left);
  }
}

const routes = {
  '/count': async (request, response) => {
    let bytes = 0;
    for await (const piece of request) bytes += piece.length;
    response.end(JSON.stringify({ bytes }));
  },
  '/bytes': (request, response, url) => {
    Readable.from(zeros(Number(url.searchParams.get('n'))), { objectMode: false }).pipe(response);
  },
  '/events': (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: 1\n\n');
    release.push(() => response.end('data: 2\n\n'));
  },
  '/release': (request, response) => {
    release.splice(0).forEach((go) => go());
    response.end('ok');
  },
  '/hang': (request, response) => {
    hanging += 1;
    response.on('close', () => {
      gone += 1;
    });
  },
  '/hanging': (request, response) => response.end(String(hanging)),
  '/gone': (request, response) => response.end(String(gone)),
};

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://function');
  const route = routes[url.pathname];
  if (!route) {
    response.writeHead(404).end();
    return;
  }
  route(request, response, url);
});

new WebSocketServer({ server, path: '/chat' }).on('connection', (socket, request) => {
  socket.send(`hello ${request.headers['x-fc-function-name']}`);
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});

server.listen(9000);
