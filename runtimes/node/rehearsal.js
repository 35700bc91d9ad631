'use strict';
// What the bootstrap loads and calls before a function comes, in the place of one.

const path = require('path');

exports.handler = async (event, context) => `${path.sep} ${context.requestId} ${event.length}`;
