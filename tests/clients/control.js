'use strict';
// The control plane through the vendor's Node SDK, unmodified: each claim is checked by its effect on calls.
// Usage: control.js CREDENTIALS_JSON, with NODE_PATH at the SDK. Prints `N passed, N failed` at the end.

const assert = require('assert');
const http = require('http');
const { create, credentials, fc, invoke, packageOf, refused, run, sdk } = require('./common.js');

const says = (text) => ({ 'index.js': `exports.handler = async () => ${JSON.stringify(text)};\n` });

async function update(name, members) {
  return (await sdk.updateFunction(name, new fc.UpdateFunctionRequest({ body: new fc.UpdateFunctionInput(members) }))).body;
}

async function publish(name) {
  const body = new fc.PublishVersionInput({ description: 'by node' });
  return (await sdk.publishFunctionVersion(name, new fc.PublishFunctionVersionRequest({ body }))).body;
}

const answer = async (name, qualifier) => (await invoke(name, '', {}, qualifier)).body.toString();

run({
  async 'versions and aliases live, and calls follow them'() {
    await create('ctl-node', says('one'));
    assert.strictEqual((await publish('ctl-node')).versionId, '1');
    await update('ctl-node', { code: new fc.InputCodeLocation({ zipFile: packageOf(says('two')) }) });
    assert.strictEqual((await publish('ctl-node')).versionId, '2');
    assert.deepStrictEqual([await answer('ctl-node', '1'), await answer('ctl-node', '2')], ['one', 'two']);
    const body = new fc.CreateAliasInput({ aliasName: 'prod', versionId: '1', additionalVersionWeight: { 2: 0.25 } });
    const alias = (await sdk.createAlias('ctl-node', new fc.CreateAliasRequest({ body }))).body;
    assert.deepStrictEqual([alias.versionId, alias.additionalVersionWeight], ['1', { 2: 0.25 }]);
    const change = new fc.UpdateAliasInput({ versionId: '2', additionalVersionWeight: {} });
    await sdk.updateAlias('ctl-node', 'prod', new fc.UpdateAliasRequest({ body: change }));
    assert.strictEqual(await answer('ctl-node', 'prod'), 'two');
    const read = (await sdk.getAlias('ctl-node', 'prod')).body;
    assert.strictEqual(read.versionId, '2');
    const aliases = (await sdk.listAliases('ctl-node', new fc.ListAliasesRequest({}))).body.aliases;
    assert.deepStrictEqual(aliases.map((each) => each.aliasName), ['prod']);
    const versions = (await sdk.listFunctionVersions('ctl-node', new fc.ListFunctionVersionsRequest({}))).body.versions;
    assert.deepStrictEqual(versions.map((each) => each.versionId), ['2', '1']);
    await sdk.deleteFunctionVersion('ctl-node', '2');
    await refused('VersionNotFound', invoke('ctl-node', '', {}, 'prod'));
    assert.strictEqual((await sdk.getAlias('ctl-node', 'prod')).body.versionId, '2');
    await sdk.deleteAlias('ctl-node', 'prod');
    await refused('AliasNotFound', invoke('ctl-node', '', {}, 'prod'));
    await sdk.deleteFunction('ctl-node');
  },
  async 'tags, switches, reservations and kept settings work from node too'() {
    await create('ctl-node', says('on'), { tags: [new fc.Tag({ key: 'a', value: 'b' })] });
    const arn = (await sdk.getFunction('ctl-node', new fc.GetFunctionRequest({}))).body.functionArn;
    const tagged = async () => (await sdk.listFunctions(new fc.ListFunctionsRequest({ tags: [new fc.Tag({ key: 'a', value: 'c' })] }))).body.functions;
    assert.strictEqual((await tagged()).length, 0);
    const tags = new fc.TagResourcesInput({ resourceType: 'function', resourceId: [arn], tag: [new fc.Tag({ key: 'a', value: 'c' })] });
    await sdk.tagResources(new fc.TagResourcesRequest({ body: tags }));
    assert.deepStrictEqual((await tagged()).map((each) => each.functionName), ['ctl-node']);
    const listed = (await sdk.listTagResources(new fc.ListTagResourcesRequest({ resourceType: 'function', resourceId: [arn] }))).body;
    assert.deepStrictEqual(listed.tagResources.map((tag) => [tag.tagKey, tag.tagValue]), [['a', 'c']]);
    await sdk.untagResources(new fc.UntagResourcesRequest({ resourceType: 'function', resourceId: [arn], all: true }));
    assert.strictEqual((await tagged()).length, 0);

    await sdk.disableFunctionInvocation('ctl-node', new fc.DisableFunctionInvocationRequest({ reason: 'r', abortOngoingRequest: true }));
    await refused('FunctionInvocationDisabled', invoke('ctl-node', ''));
    await sdk.enableFunctionInvocation('ctl-node');
    assert.strictEqual(await answer('ctl-node'), 'on');

    const reserve = (reservedConcurrency) =>
      sdk.putConcurrencyConfig('ctl-node', new fc.PutConcurrencyConfigRequest({ body: new fc.PutConcurrencyInput({ reservedConcurrency }) }));
    assert.strictEqual((await reserve(0)).body.reservedConcurrency, 0);
    await refused('ResourceExhausted', invoke('ctl-node', ''));
    await reserve(2);
    assert.strictEqual(await answer('ctl-node'), 'on');
    await sdk.deleteConcurrencyConfig('ctl-node');
    await refused('OnDemandConfigNotFound', sdk.getConcurrencyConfig('ctl-node'));

    const body = new fc.PutAsyncInvokeConfigInput({ maxAsyncRetryAttempts: 1, maxAsyncEventAgeInSeconds: 60 });
    const put = (await sdk.putAsyncInvokeConfig('ctl-node', new fc.PutAsyncInvokeConfigRequest({ body }))).body;
    assert.deepStrictEqual([put.maxAsyncRetryAttempts, put.maxAsyncEventAgeInSeconds, put.asyncTask], [1, 60, undefined]);
    await sdk.createVpcBinding('ctl-node', new fc.CreateVpcBindingRequest({ body: new fc.CreateVpcBindingInput({ vpcId: 'vpc-1' }) }));
    assert.deepStrictEqual((await sdk.listVpcBindings('ctl-node')).body.vpcIds, ['vpc-1']);
    await sdk.deleteVpcBinding('ctl-node', 'vpc-1');
    await sdk.deleteFunction('ctl-node');
  },
  async 'layers live, and functions use them'() {
    const publishLayer = async (name, files, members = {}) => {
      const code = new fc.InputCodeLocation({ zipFile: packageOf(files) });
      const body = new fc.CreateLayerVersionInput({ code, ...members });
      return (await sdk.createLayerVersion(name, new fc.CreateLayerVersionRequest({ body }))).body;
    };
    const said = (word) => ({ 'nodejs/node_modules/word.js': `module.exports = '${word}';\n` });
    const one = await publishLayer('lay-node', said('one'), { description: 'd', license: 'MIT', compatibleRuntime: ['nodejs20'] });
    const two = await publishLayer('lay-node', said('two'));
    assert.deepStrictEqual([one.version, two.version, one.layerName, one.acl, one.description, one.license, one.compatibleRuntime],
      [1, 2, 'lay-node', '0', 'd', 'MIT', ['nodejs20']]);
    const shown = (layer) => ({ ...layer.toMap(), code: undefined });
    assert.deepStrictEqual(shown((await sdk.getLayerVersion('lay-node', '1')).body), shown(one));
    assert.deepStrictEqual(shown((await sdk.getLayerVersionByArn(two.layerVersionArn)).body), shown(two));
    const page = (await sdk.listLayerVersions('lay-node', new fc.ListLayerVersionsRequest({ limit: 1 }))).body;
    assert.deepStrictEqual([page.layers.map((each) => each.version), page.nextVersion], [[1], 2]);
    const rest = (await sdk.listLayerVersions('lay-node', new fc.ListLayerVersionsRequest({ startVersion: page.nextVersion }))).body;
    assert.deepStrictEqual([rest.layers.map((each) => each.version), rest.nextVersion ?? null], [[2], null]);
    const listed = async (members) => (await sdk.listLayers(new fc.ListLayersRequest(members))).body.layers.map((each) => each.layerName);
    assert.deepStrictEqual([await listed({ prefix: 'lay-' }), await listed({ prefix: 'x' }), await listed({ public: true })], [['lay-node'], [], []]);
    await sdk.putLayerACL('lay-node', new fc.PutLayerACLRequest({ acl: '1' }));
    assert.deepStrictEqual([await listed({ public: true }), (await sdk.getLayerVersion('lay-node', '2')).body.acl], [['lay-node'], '1']);
    await sdk.putLayerACL('lay-node', new fc.PutLayerACLRequest({ acl: '0' }));
    await refused('InvalidArgument', sdk.putLayerACL('lay-node', new fc.PutLayerACLRequest({})));

    const code = { 'index.js': "const word = require('word');\nexports.handler = async () => word;\n" };
    const made = await create('ctl-layers', code, { layers: [one.layerVersionArn, two.layerVersionArn] });
    assert.deepStrictEqual(made.layers.map((each) => [each.arn, each.size]), [one, two].map((each) => [each.layerVersionArn, each.codeSize]));
    assert.strictEqual(await answer('ctl-layers'), 'one');
    await update('ctl-layers', { layers: [two.layerVersionArn, one.layerVersionArn] });
    assert.strictEqual(await answer('ctl-layers'), 'two');
    await sdk.deleteLayerVersion('lay-node', '2');
    await refused('LayerVersionNotFound', sdk.getLayerVersion('lay-node', '2'));
    await refused('LayerVersionNotFound', create('ctl-other', code, { layers: [two.layerVersionArn] }));
    await refused('InvalidArgument', create('ctl-other', code, { layers: ['nonsense'] }));
    await update('ctl-layers', { timeout: 5 });
    assert.strictEqual(await answer('ctl-layers'), 'two');
    await update('ctl-layers', { layers: [] });
    assert.strictEqual((await sdk.getFunction('ctl-layers', new fc.GetFunctionRequest({}))).body.layers, undefined);
    await refused('LayerNotFound', sdk.listLayerVersions('lay-none', new fc.ListLayerVersionsRequest({})));
    await sdk.deleteFunction('ctl-layers');
  },
  async 'provision and scaling configurations work from node too'() {
    await create('ctl-node', says('ready'));
    const qualifier = 'LATEST';
    const get = async () => (await sdk.getProvisionConfig('ctl-node', new fc.GetProvisionConfigRequest({ qualifier }))).body;
    assert.deepStrictEqual([(await get()).target, (await get()).current], [0, 0]);
    const action = { name: 'a', scheduleExpression: 'cron(0 0 4 * * *)', target: 2, timeZone: 'Asia/Shanghai', startTime: '2036-01-01T00:00:00' };
    const policy = { name: 'p', metricType: 'ProvisionedConcurrencyUtilization', metricTarget: 0.5, minCapacity: 1, maxCapacity: 1 };
    const put = async (members) => {
      const body = new fc.PutProvisionConfigInput(members);
      return (await sdk.putProvisionConfig('ctl-node', new fc.PutProvisionConfigRequest({ qualifier, body }))).body;
    };
    const said = await put({
      defaultTarget: 1,
      alwaysAllocateCPU: false,
      scheduledActions: [new fc.ScheduledAction(action)],
      targetTrackingPolicies: [new fc.TargetTrackingPolicy(policy)],
    });
    assert.deepStrictEqual([said.target, said.defaultTarget, said.alwaysAllocateCPU], [1, 1, false]);
    const given = JSON.parse(JSON.stringify([said.scheduledActions[0], said.targetTrackingPolicies[0]]));
    assert.deepStrictEqual(given, [action, policy]);
    while ((await get()).current !== 1) assert.ok(!(await get()).currentError);
    assert.strictEqual(await answer('ctl-node'), 'ready');
    await refused('InvalidArgument', put({ defaultTarget: -1 }));
    const list = (await sdk.listProvisionConfigs(new fc.ListProvisionConfigsRequest({ functionName: 'ctl-node' }))).body;
    assert.deepStrictEqual(list.provisionConfigs.map((each) => each.defaultTarget), [1]);
    await sdk.deleteProvisionConfig('ctl-node', new fc.DeleteProvisionConfigRequest({ qualifier }));

    const body = new fc.PutScalingConfigInput({ minInstances: 0, enableOnDemandScaling: false });
    await sdk.putScalingConfig('ctl-node', new fc.PutScalingConfigRequest({ qualifier, body }));
    await refused('ResourceExhausted', invoke('ctl-node', ''));
    const status = (await sdk.getScalingConfig('ctl-node', new fc.GetScalingConfigRequest({ qualifier }))).body;
    assert.deepStrictEqual([status.minInstances, status.currentInstances, status.enableOnDemandScaling], [0, 0, false]);
    const scaling = (await sdk.listScalingConfigs(new fc.ListScalingConfigsRequest({ functionName: 'ctl-node' }))).body;
    assert.strictEqual(scaling.scalingConfigs.length, 1);
    await sdk.deleteScalingConfig('ctl-node', new fc.DeleteScalingConfigRequest({ qualifier }));
    assert.strictEqual(await answer('ctl-node'), 'ready');
    await sdk.deleteFunction('ctl-node');
  },
  async 'custom domains live, and requests follow them'() {
    await create('ctl-node', says('served'));
    const routes = (paths) => new fc.RouteConfig({ routes: paths.map((path) => new fc.PathConfig({ path, functionName: 'ctl-node', methods: ['GET'] })) });
    const made = new fc.CreateCustomDomainInput({ domainName: 'node.example.test', protocol: 'HTTP', routeConfig: routes(['/a', '/b/*']) });
    const created = (await sdk.createCustomDomain(new fc.CreateCustomDomainRequest({ body: made }))).body;
    assert.deepStrictEqual(created.routeConfig.routes.map((route) => [route.path, route.functionName, route.methods]), [
      ['/a', 'ctl-node', ['GET']],
      ['/b/*', 'ctl-node', ['GET']],
    ]);
    assert.deepStrictEqual([created.certConfig, created.tlsConfig, created.authConfig], [undefined, undefined, undefined]);
    const status = (path) =>
      new Promise((resolve, reject) => {
        const { hostname, port } = new URL(credentials.endpoint);
        http.get({ hostname, port, path, headers: { host: 'node.example.test' } }, (reply) => resolve(reply.resume().statusCode)).on('error', reject);
      });
    assert.deepStrictEqual([await status('/a'), await status('/b/c'), await status('/c')], [200, 200, 404]);
    const jwks = { keys: [{ kty: 'oct', k: 'A'.repeat(43), kid: 'one' }] };
    const authInfo = JSON.stringify({ jwks, tokenLookup: 'header:Authorization:Bearer ' });
    const guard = new fc.UpdateCustomDomainInput({ authConfig: new fc.AuthConfig({ authType: 'jwt', authInfo }) });
    const guarded = (await sdk.updateCustomDomain('node.example.test', new fc.UpdateCustomDomainRequest({ body: guard }))).body;
    assert.deepStrictEqual([guarded.authConfig.authType, guarded.authConfig.authInfo], ['jwt', authInfo]);
    assert.strictEqual(guarded.routeConfig.routes.length, 2);
    assert.strictEqual(await status('/a'), 403);
    const read = (await sdk.getCustomDomain('node.example.test')).body;
    assert.deepStrictEqual(read.toMap(), guarded.toMap());
    const listed = (await sdk.listCustomDomains(new fc.ListCustomDomainsRequest({ prefix: 'node', limit: 1 }))).body;
    assert.deepStrictEqual([listed.customDomains.map((each) => each.domainName), listed.nextToken], [['node.example.test'], undefined]);
    const wrong = new fc.UpdateCustomDomainInput({ protocol: 'HTTPS' });
    await refused('InvalidArgument', sdk.updateCustomDomain('node.example.test', new fc.UpdateCustomDomainRequest({ body: wrong })));
    await sdk.deleteCustomDomain('node.example.test');
    await refused('DomainNameNotFound', sdk.getCustomDomain('node.example.test'));
    await sdk.deleteFunction('ctl-node');
  },
  async 'sessions are made, read, changed, paused, listed and ended'() {
    const name = 'ctl-node-session';
    const config = new fc.HeaderFieldSessionAffinityConfig({ affinityHeaderFieldName: 'ctl-session', sessionTTLInSeconds: 100 });
    const sessionAffinityConfig = JSON.stringify(config.toMap());
    await create(name, says('here'), { sessionAffinity: 'HEADER_FIELD', sessionAffinityConfig });
    const instance = async (id) =>
      (await invoke(name, '', { commonHeaders: { 'ctl-session': id } })).headers['x-fc-instance-id'];
    const body = new fc.CreateSessionInput({ sessionId: 'one', sessionIdleTimeoutInSeconds: 50 });
    const made = (await sdk.createSession(name, new fc.CreateSessionRequest({ body }))).body;
    assert.deepStrictEqual(
      [made.sessionId, made.sessionStatus, made.sessionTTLInSeconds, made.sessionIdleTimeoutInSeconds, made.qualifier],
      ['one', 'Active', 100, 50, 'LATEST'],
    );
    assert.strictEqual(await instance('one'), made.containerId);
    assert.notStrictEqual(await instance('two'), made.containerId);
    const got = (await sdk.getSession(name, 'one', new fc.GetSessionRequest({}))).body;
    assert.deepStrictEqual(got.toMap(), made.toMap());
    const change = new fc.UpdateSessionInput({ sessionTTLInSeconds: 70 });
    const changed = (await sdk.updateSession(name, 'one', new fc.UpdateSessionRequest({ body: change }))).body;
    assert.deepStrictEqual([changed.sessionTTLInSeconds, changed.sessionIdleTimeoutInSeconds], [70, 50]);
    const paused = (await sdk.pauseSession(name, 'one', new fc.PauseSessionRequest({}))).body;
    assert.strictEqual(paused.sessionStatus, 'Paused');
    await refused('SessionPaused', instance('one'));
    assert.strictEqual((await sdk.resumeSession(name, 'one', new fc.ResumeSessionRequest({}))).body.sessionStatus, 'Active');
    assert.strictEqual(await instance('one'), made.containerId);
    const list = (query) => sdk.listSessions(name, new fc.ListSessionsRequest(query)).then((reply) => reply.body);
    const first = await list({ limit: 1 });
    const second = await list({ limit: 1, nextToken: first.nextToken });
    assert.deepStrictEqual([...first.sessions, ...second.sessions].map((each) => each.sessionId), ['one', 'two']);
    assert.deepStrictEqual((await list({ sessionStatus: 'Expired' })).sessions, []);
    await refused('InvalidArgument', list({ sessionStatus: 'Lost' }));
    await sdk.deleteSession(name, 'one', new fc.DeleteSessionRequest({}));
    await refused('SessionNotFound', sdk.getSession(name, 'one', new fc.GetSessionRequest({})));
    await sdk.deleteFunction(name);
  },
});
