'use strict';

exports.handler = async (event, context) => {
  console.log(`called with ${event.length} bytes`);
  const text = event.toString();
  const request = text.startsWith('{') ? JSON.parse(text) : {};
  const name = (request.queryParameters || {}).name || (text && !text.startsWith('{') ? text : 'world');
  return { statusCode: 200, headers: { 'content-type': 'text/plain' }, body: `hello ${name} from Node.js\n` };
};
