'use strict';
// What the scenarios share: the vendor's Node SDK against the platform that the first argument's credentials name.

const fs = require('fs');
const assert = require('assert');
const { Readable } = require('stream');
const { execFileSync } = require('child_process');
const os = require('os');
const path = require('path');
const fc = require('@alicloud/fc20230330');
const { $OpenApiUtil } = require('@alicloud/openapi-core');

const credentials = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const host = credentials.endpoint.replace('http://', '');
const client = (changes = {}) =>
  new fc.default(
    new $OpenApiUtil.Config({
      accessKeyId: credentials.accessKeyId,
      accessKeySecret: credentials.accessKeySecret,
      endpoint: host,
      protocol: 'http',
      regionId: credentials.region,
      readTimeout: 60000,
      ...changes,
    }),
  );
const sdk = client();

function packageOf(files) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'scenario-'));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), text);
  }
  const script =
    'import sys,zipfile,io,base64,os\nb=io.BytesIO()\nz=zipfile.ZipFile(b,"w")\n' +
    'for p,_,f in sorted(os.walk(sys.argv[1])):\n for n in sorted(f): z.write(os.path.join(p,n),os.path.relpath(os.path.join(p,n),sys.argv[1]))\n' +
    'z.close()\nprint(base64.b64encode(b.getvalue()).decode(),end="")';
  const zip = execFileSync('/usr/bin/python3', ['-c', script, folder], { encoding: 'utf8' });
  fs.rmSync(folder, { recursive: true });
  return zip;
}

async function create(functionName, files, members = {}) {
  const body = new fc.CreateFunctionInput({
    functionName,
    runtime: 'nodejs20',
    handler: 'index.handler',
    code: new fc.InputCodeLocation({ zipFile: packageOf(files) }),
    ...members,
  });
  return (await sdk.createFunction(new fc.CreateFunctionRequest({ body }))).body;
}

async function invoke(name, event, headers = {}, qualifier = undefined) {
  const request = new fc.InvokeFunctionRequest({ body: Readable.from([Buffer.from(event)]), qualifier });
  const { RuntimeOptions } = require('@alicloud/tea-util');
  const reply = await sdk.invokeFunctionWithOptions(
    name,
    request,
    new fc.InvokeFunctionHeaders(headers),
    new RuntimeOptions({ readTimeout: 60000 }),
  );
  const parts = [];
  for await (const part of reply.body) parts.push(part);
  return { status: reply.statusCode, headers: reply.headers, body: Buffer.concat(parts) };
}

async function refused(code, call) {
  await assert.rejects(call, (error) => {
    assert.strictEqual(error.code, code, String(error.stack));
    return true;
  });
}

const ECHO = { 'index.js': 'exports.handler = async (event) => event;\n' };

// Checks every claim. Prints one line for each and `N passed, N failed` at the end.
async function run(claims) {
  let failed = 0;
  for (const [name, check] of Object.entries(claims)) {
    try {
      await check();
      console.log(`ok   ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}\n${error.stack}`);
    }
  }
  console.log(`${Object.keys(claims).length - failed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}

module.exports = { ECHO, client, create, credentials, fc, host, invoke, packageOf, refused, run, sdk };
