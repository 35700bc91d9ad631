"""The control plane through the vendor's Python SDK, unmodified: each claim is checked by its effect on calls.

Usage: control.py CREDENTIALS_JSON. Prints one line per claim and `N passed, N failed` at the end.
"""

import json
import threading
import urllib.request

from alibabacloud_fc20230330 import models as fc

from common import claim, client, create, credentials, get, host, invoke, package, refused, run, sdk

# Answers with the version it was started as, and with what its environment says.
WHO = {
    "index.py": "import os\ndef handler(event, context):\n    return os.environ.get('FC_FUNCTION_VERSION', '') + ':' + os.environ.get('STAGE', '')\n"
}


def update(name, **members):
    return sdk.update_function(name, fc.UpdateFunctionRequest(body=fc.UpdateFunctionInput(**members))).body


def publish(name, description=None):
    body = fc.PublishVersionInput(description=description)
    return sdk.publish_function_version(name, fc.PublishFunctionVersionRequest(body=body)).body


def set_alias(name, alias, version, weight=None, new=False):
    if new:
        body = fc.CreateAliasInput(alias_name=alias, version_id=version, additional_version_weight=weight)
        return sdk.create_alias(name, fc.CreateAliasRequest(body=body)).body
    body = fc.UpdateAliasInput(version_id=version, additional_version_weight=weight)
    return sdk.update_alias(name, alias, fc.UpdateAliasRequest(body=body)).body


@claim
def a_version_runs_what_was_published_whatever_the_head_becomes():
    create("ctl-version", WHO, environment_variables={"STAGE": "one"})
    first = publish("ctl-version", "the first")
    assert (first.version_id, first.description) == ("1", "the first") and first.created_time
    update("ctl-version", environment_variables={"STAGE": "two"})
    assert publish("ctl-version").version_id == "2"
    update("ctl-version", environment_variables={"STAGE": "head"})
    for qualifier, stage, version in [(None, "head", "LATEST"), ("LATEST", "head", "LATEST"), ("1", "one", "1"), ("2", "two", "2")]:
        _, headers, body = invoke("ctl-version", qualifier=qualifier)
        assert body.decode().endswith(":" + stage), (qualifier, body)
        assert headers["x-fc-invocation-service-version"] == version, headers
    read = sdk.get_function("ctl-version", fc.GetFunctionRequest(qualifier="1")).body
    assert read.environment_variables == {"STAGE": "one"} and read.function_arn.endswith(":functions/ctl-version/1")
    listed = sdk.list_function_versions("ctl-version", fc.ListFunctionVersionsRequest()).body
    assert ([v.version_id for v in listed.versions], listed.direction) == (["2", "1"], "BACKWARD")
    listed = sdk.list_function_versions("ctl-version", fc.ListFunctionVersionsRequest(direction="FORWARD", limit=1)).body
    assert [v.version_id for v in listed.versions] == ["1"] and listed.next_token
    sdk.delete_function_version("ctl-version", "1")
    refused("VersionNotFound", 404, lambda: invoke("ctl-version", qualifier="1"))
    assert publish("ctl-version").version_id == "3"
    instances = sdk.list_instances("ctl-version", fc.ListInstancesRequest(qualifier="2")).body.instances
    assert [i.version_id for i in instances] == ["2"], instances
    sdk.delete_function("ctl-version")


@claim
def the_code_of_a_version_can_be_downloaded():
    create("ctl-code", WHO)
    publish("ctl-code")
    update("ctl-code", code=fc.InputCodeLocation(zip_file=package({"index.py": "def handler(e, c):\n    return 'new'\n"})))
    old = sdk.get_function_code("ctl-code", fc.GetFunctionCodeRequest(qualifier="1")).body
    new = sdk.get_function_code("ctl-code", fc.GetFunctionCodeRequest()).body
    assert old.checksum != new.checksum
    assert len(urllib.request.urlopen(old.url, timeout=30).read()) != len(urllib.request.urlopen(new.url, timeout=30).read())
    assert invoke("ctl-code")[2] == b"new" and invoke("ctl-code", qualifier="1")[2] != b"new"
    sdk.delete_function("ctl-code")


@claim
def an_alias_shares_its_calls_and_is_switched():
    create("ctl-alias", WHO, environment_variables={"STAGE": "one"})
    publish("ctl-alias")
    update("ctl-alias", environment_variables={"STAGE": "two"})
    publish("ctl-alias")
    alias = set_alias("ctl-alias", "prod", "1", {"2": 0.5}, new=True)
    assert alias.to_map()["additionalVersionWeight"] == {"2": 0.5} and alias.version_id == "1"
    assert sdk.get_alias("ctl-alias", "prod").body.to_map() == alias.to_map()
    seen = {invoke("ctl-alias", qualifier="prod")[1]["x-fc-invocation-service-version"] for _ in range(40)}
    assert seen == {"1", "2"}, seen
    set_alias("ctl-alias", "prod", "2", {})
    assert {invoke("ctl-alias", qualifier="prod")[2].decode().split(":")[1] for _ in range(10)} == {"two"}
    refused("AdditionalVersionContainsMajorVersion", 400, lambda: set_alias("ctl-alias", "prod", "2", {"2": 0.1}))
    refused("VersionNotFound", 404, lambda: set_alias("ctl-alias", "prod", "9", {}))
    refused("InvalidArgument", 400, lambda: set_alias("ctl-alias", "prod", "1", {"2": 1.5}))
    refused("AliasAlreadyExists", 409, lambda: set_alias("ctl-alias", "prod", "1", new=True))
    assert [a.alias_name for a in sdk.list_aliases("ctl-alias", fc.ListAliasesRequest(prefix="pr")).body.aliases] == ["prod"]

    config = json.dumps({"authType": "anonymous", "methods": ["GET"]})
    body = fc.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config=config, qualifier="prod")
    trigger = sdk.create_trigger("ctl-alias", fc.CreateTriggerRequest(body=body)).body
    url = urllib.request.Request(f"http://{host}/", headers={"Host": trigger.http_trigger.url_internet.split("/")[2]})
    assert trigger.qualifier == "prod" and urllib.request.urlopen(url, timeout=30).read().endswith(b":two")
    set_alias("ctl-alias", "prod", "1", {})
    assert urllib.request.urlopen(url, timeout=30).read().endswith(b":one"), "the URL follows the alias"
    sdk.delete_alias("ctl-alias", "prod")
    refused("AliasNotFound", 404, lambda: invoke("ctl-alias", qualifier="prod"))
    sdk.delete_trigger("ctl-alias", "web")
    sdk.delete_function("ctl-alias")


@claim
def no_call_is_dropped_while_versions_are_published_and_aliases_switched():
    create("ctl-busy", WHO, environment_variables={"STAGE": "0"}, timeout=30)
    publish("ctl-busy")
    set_alias("ctl-busy", "live", "1", new=True)
    calls, workers = 10000, 8
    over, failures, served = threading.Event(), [], {}
    lock = threading.Lock()

    def call(count):
        own = client()
        for number in range(count):
            qualifier = "live" if number % 4 else "LATEST"
            try:
                status, headers, body = invoke("ctl-busy", qualifier=qualifier, sdk=own)
                assert status == 200 and "x-fc-error-type" not in headers, (status, headers, body)
                with lock:
                    version = headers["x-fc-invocation-service-version"]
                    served[version] = served.get(version, 0) + 1
            except Exception as error:
                failures.append(f"{qualifier}: {error}")

    changes = 0
    threads = [threading.Thread(target=call, args=(calls // workers,)) for _ in range(workers)]

    def change():
        nonlocal changes
        while not over.is_set():
            changes += 1
            update("ctl-busy", environment_variables={"STAGE": str(changes)})
            version = publish("ctl-busy").version_id
            # The one before keeps a share while the new one comes up.
            set_alias("ctl-busy", "live", version, {str(int(version) - 1): 0.5})
            over.wait(0.2)

    changer = threading.Thread(target=change)
    for thread in [*threads, changer]:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    changer.join()
    done = sum(served.values())
    print(f"{done} calls answered by {len(served)} versions under {changes} rounds of update, publish and switch; {len(failures)} dropped")
    assert not failures and done == calls, failures[:3]
    assert changes > 3 and len(served) > 3, (changes, served)
    sdk.delete_function("ctl-busy")


@claim
def tags_filter_lists_and_change_without_a_cold_start():
    tag = [fc.Tag(key="team", value="x"), fc.Tag(key="stage", value="test")]
    create("ctl-tags", WHO, tags=tag, description="tagged for a test")
    create("ctl-plain", WHO)
    arn = sdk.get_function("ctl-tags", fc.GetFunctionRequest()).body.function_arn
    instance = invoke("ctl-tags")[1]["x-fc-instance-id"]

    def found(**filters):
        return [f.function_name for f in sdk.list_functions(fc.ListFunctionsRequest(prefix="ctl-", **filters)).body.functions]

    assert found(tags=[fc.Tag(key="team", value="x")]) == ["ctl-tags"]
    assert found(tags=[fc.Tag(key="team", value="y")]) == []
    assert found(description="for a test") == ["ctl-tags"] and found(runtime="python3.10") == ["ctl-plain", "ctl-tags"]
    body = fc.TagResourcesInput(resource_type="function", resource_id=[arn], tag=[fc.Tag(key="team", value="y")])
    sdk.tag_resources(fc.TagResourcesRequest(body=body))
    assert found(tags=[fc.Tag(key="team", value="y"), fc.Tag(key="stage", value="test")]) == ["ctl-tags"]
    listed = sdk.list_tag_resources(fc.ListTagResourcesRequest(resource_type="function", resource_id=[arn])).body
    assert {(t.tag_key, t.tag_value) for t in listed.tag_resources} == {("team", "y"), ("stage", "test")}
    assert {t.resource_id for t in listed.tag_resources} == {arn} and listed.request_id
    sdk.untag_resources(fc.UntagResourcesRequest(resource_type="function", resource_id=[arn], tag_key=["team"]))
    assert [t.key for t in sdk.get_function("ctl-tags", fc.GetFunctionRequest()).body.tags] == ["stage"]
    sdk.untag_resources(fc.UntagResourcesRequest(resource_type="function", resource_id=[arn], all=True))
    assert not sdk.get_function("ctl-tags", fc.GetFunctionRequest()).body.tags
    group = fc.ChangeResourceGroupInput(resource_type="function", resource_id=arn, new_resource_group_id="rg-2")
    assert sdk.change_resource_group(fc.ChangeResourceGroupRequest(body=group)).body.new_resource_group_id == "rg-2"
    assert found(resource_group_id="rg-2") == ["ctl-tags"]
    assert invoke("ctl-tags")[1]["x-fc-instance-id"] == instance, "the instance stayed warm through all of it"
    sdk.delete_function("ctl-tags")
    sdk.delete_function("ctl-plain")


@claim
def calls_are_switched_off_and_on():
    slow = {"index.py": "import time\ndef handler(event, context):\n    time.sleep(float(event or b'0'))\n    return 'done'\n"}
    create("ctl-switch", slow, timeout=60)
    assert invoke("ctl-switch")[2] == b"done"
    off = fc.DisableFunctionInvocationRequest(reason="rebuilding", abort_ongoing_request=False)
    assert sdk.disable_function_invocation("ctl-switch", off).body.success is True
    refused("FunctionInvocationDisabled", 403, lambda: invoke("ctl-switch"))
    shown = sdk.get_function("ctl-switch", fc.GetFunctionRequest()).body.invocation_restriction
    assert shown.disable is True and shown.reason == "rebuilding" and shown.last_modified_time
    assert sdk.enable_function_invocation("ctl-switch").body.success is True
    ended = []
    caller = threading.Thread(target=lambda: ended.append(invoke("ctl-switch", b"50", sdk=client())))
    caller.start()
    while "busy" not in [instance["state"] for instance in get("/functions/ctl-switch/instances")["instances"]]:
        assert caller.is_alive(), "the call ended before it was seen"
    sdk.disable_function_invocation("ctl-switch", fc.DisableFunctionInvocationRequest(abort_ongoing_request=True))
    caller.join(30)
    assert ended and ended[0][1]["x-fc-error-type"] == "UnhandledInvocationError", ended
    sdk.enable_function_invocation("ctl-switch")
    assert invoke("ctl-switch")[2] == b"done"
    sdk.delete_function("ctl-switch")


@claim
def reserved_instances_are_a_limit_and_none_means_no_calls():
    slow = {"index.py": "import time\ndef handler(event, context):\n    time.sleep(1)\n    return 'done'\n"}
    create("ctl-reserve", slow, timeout=60)
    put = lambda n: sdk.put_concurrency_config(
        "ctl-reserve", fc.PutConcurrencyConfigRequest(body=fc.PutConcurrencyInput(reserved_concurrency=n))
    ).body
    refused("OnDemandConfigNotFound", 404, lambda: sdk.get_concurrency_config("ctl-reserve"))
    config = put(1)
    assert config.reserved_concurrency == 1 and config.function_arn.endswith(":functions/ctl-reserve")
    assert sdk.get_concurrency_config("ctl-reserve").body.to_map() == config.to_map()
    used = set()
    threads = [threading.Thread(target=lambda: used.add(invoke("ctl-reserve", sdk=client())[1]["x-fc-instance-id"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(used) == 1, used
    put(0)
    refused("ResourceExhausted", 429, lambda: invoke("ctl-reserve"))
    assert "reservedConcurrency" in refused("InvalidArgument", 400, lambda: put(1000000))
    listed = sdk.list_concurrency_configs(fc.ListConcurrencyConfigsRequest(function_name="ctl-reserve")).body.configs
    assert [c.reserved_concurrency for c in listed] == [0]
    sdk.delete_concurrency_config("ctl-reserve")
    assert invoke("ctl-reserve")[2] == b"done"
    sdk.delete_function("ctl-reserve")


@claim
def async_invoke_and_vpc_settings_are_kept():
    create("ctl-kept", WHO)
    create("ctl-sink", WHO)
    sink = sdk.get_function("ctl-sink", fc.GetFunctionRequest()).body.function_arn
    destinations = fc.DestinationConfig(on_failure=fc.Destination(destination=sink))
    body = fc.PutAsyncInvokeConfigInput(
        async_task=True, max_async_retry_attempts=2, max_async_event_age_in_seconds=600, destination_config=destinations
    )
    put = sdk.put_async_invoke_config("ctl-kept", fc.PutAsyncInvokeConfigRequest(qualifier="LATEST", body=body)).body
    assert {k: put.to_map()[k] for k in body.to_map()} == body.to_map() and put.function_arn.endswith("ctl-kept/LATEST")
    assert sdk.get_async_invoke_config("ctl-kept", fc.GetAsyncInvokeConfigRequest()).body.to_map() == put.to_map()
    listed = sdk.list_async_invoke_configs(fc.ListAsyncInvokeConfigsRequest(function_name="ctl-kept")).body.configs
    assert [c.to_map() for c in listed] == [put.to_map()]
    sdk.delete_async_invoke_config("ctl-kept", fc.DeleteAsyncInvokeConfigRequest())
    refused("AsyncConfigNotExists", 404, lambda: sdk.get_async_invoke_config("ctl-kept", fc.GetAsyncInvokeConfigRequest()))
    for vpc in ["vpc-1", "vpc-2"]:
        sdk.create_vpc_binding("ctl-kept", fc.CreateVpcBindingRequest(body=fc.CreateVpcBindingInput(vpc_id=vpc)))
    assert sdk.list_vpc_bindings("ctl-kept").body.vpc_ids == ["vpc-1", "vpc-2"]
    sdk.delete_vpc_binding("ctl-kept", "vpc-1")
    assert sdk.list_vpc_bindings("ctl-kept").body.vpc_ids == ["vpc-2"]
    sdk.delete_function("ctl-kept")
    sdk.delete_function("ctl-sink")


# A domain with every member that has an effect without TLS; the certificate's half is `domains` of the platform's tests.
def full_domain():
    rules = fc.RewriteConfig(
        equal_rules=[fc.EqualRule(match="/old", replacement="/new")],
        wildcard_rules=[fc.WildcardRule(match="^/css/*", replacement="/static/$1")],
        regex_rules=[fc.RegexRule(match="^/u/(\\d+)$", replacement="/user?id=$1")],
    )
    routes = [
        fc.PathConfig(path="/api/*", function_name="ctl-domain", qualifier="1", methods=["GET", "POST"], rewrite_config=rules),
        fc.PathConfig(path="/*", function_name="ctl-domain"),
    ]
    cors = fc.CORSConfig(
        allow_credentials=True, allow_headers=["x-one"], allow_methods=["GET"], allow_origins=["https://a.example"],
        expose_headers=["x-two"], max_age=60,
    )
    return {
        "protocol": "HTTP",
        "route_config": fc.RouteConfig(routes=routes),
        "auth_config": fc.AuthConfig(auth_type="anonymous"),
        "cors_config": cors,
        "waf_config": fc.WAFConfig(enable_waf=False),
    }


@claim
def a_custom_domain_is_kept_member_by_member_and_changes_in_parts():
    create("ctl-domain", WHO)
    publish("ctl-domain")
    given = fc.CreateCustomDomainInput(domain_name="ctl.example.test", **full_domain())
    made = sdk.create_custom_domain(fc.CreateCustomDomainRequest(body=given)).body
    sent = given.to_map()
    assert {member: made.to_map()[member] for member in sent} == sent, made
    assert (made.account_id, made.api_version) == (credentials["accountId"], "2023-03-30")
    assert made.created_time == made.last_modified_time and made.created_time.endswith("Z")
    assert sdk.get_custom_domain("ctl.example.test").body.to_map() == made.to_map()

    def answer(path, host_name="ctl.example.test"):
        request = urllib.request.Request(f"http://{host}{path}", headers={"Host": host_name})
        return urllib.request.urlopen(request, timeout=30).read().decode()

    assert answer("/api/x").startswith("1:") and not answer("/x").startswith("1:")
    # A change of one member leaves the others.
    patch = fc.UpdateCustomDomainInput(cors_config=fc.CORSConfig(allow_origins=["*"]))
    changed = sdk.update_custom_domain("ctl.example.test", fc.UpdateCustomDomainRequest(body=patch)).body
    assert changed.cors_config.allow_origins == ["*"]
    kept = ["routeConfig", "authConfig", "wafConfig", "protocol", "createdTime"]
    assert {member: changed.to_map()[member] for member in kept} == {member: made.to_map()[member] for member in kept}
    patch = fc.UpdateCustomDomainInput(route_config=fc.RouteConfig(routes=[fc.PathConfig(path="/only", function_name="ctl-domain")]))
    changed = sdk.update_custom_domain("ctl.example.test", fc.UpdateCustomDomainRequest(body=patch)).body
    assert [route.to_map() for route in changed.route_config.routes] == [{"path": "/only", "functionName": "ctl-domain"}]
    refused("DomainNameAlreadyExists", 409, lambda: sdk.create_custom_domain(fc.CreateCustomDomainRequest(body=given)))
    bad = fc.UpdateCustomDomainInput(route_config=fc.RouteConfig(routes=[fc.PathConfig(path="x", function_name="ctl-domain")]))
    refusal = refused("InvalidArgument", 400, lambda: sdk.update_custom_domain("ctl.example.test", fc.UpdateCustomDomainRequest(body=bad)))
    assert "routeConfig.routes[0].path" in refusal, refusal
    assert sdk.get_custom_domain("ctl.example.test").body.to_map() == changed.to_map()

    # What was never given is not made up.
    for name in ["ctl-b.example.test", "ctl-a.example.test", "other.example.test"]:
        body = fc.CreateCustomDomainInput(domain_name=name, protocol="HTTP")
        plain = sdk.create_custom_domain(fc.CreateCustomDomainRequest(body=body)).body.to_map()
        assert set(plain) == {"accountId", "apiVersion", "createdTime", "domainName", "lastModifiedTime", "protocol"}, plain
    page = lambda **query: sdk.list_custom_domains(fc.ListCustomDomainsRequest(**query)).body
    first = page(prefix="ctl", limit=2)
    assert [domain.domain_name for domain in first.custom_domains] == ["ctl-a.example.test", "ctl-b.example.test"] and first.next_token
    second = page(prefix="ctl", limit=2, next_token=first.next_token)
    assert [domain.domain_name for domain in second.custom_domains] == ["ctl.example.test"] and not second.next_token
    assert len(page().custom_domains) == 4
    refused("InvalidArgument", 400, lambda: page(next_token="forged"))
    for name in ["ctl.example.test", "ctl-a.example.test", "ctl-b.example.test", "other.example.test"]:
        sdk.delete_custom_domain(name)
    for call in [sdk.get_custom_domain, sdk.delete_custom_domain]:
        refused("DomainNameNotFound", 404, lambda: call("ctl.example.test"))
    assert not page().custom_domains
    sdk.delete_function("ctl-domain")


run()
