"""The control plane through the vendor's Python SDK, unmodified: each claim is checked by its effect on calls.

Usage: control.py CREDENTIALS_JSON. Prints one line per claim and `N passed, N failed` at the end.
"""

import base64
import io
import json
import threading
import urllib.request

from alibabacloud_fc20230330 import models as fc
from alibabacloud_tea_util.models import RuntimeOptions

from common import claim, client, crc64, create, credentials, get, host, invoke, package, refused, run, sdk


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


def publish_layer(name, files, checksum=None, **members):
    code = fc.InputCodeLocation(zip_file=package(files), checksum=checksum)
    body = fc.CreateLayerVersionInput(code=code, **members)
    return sdk.create_layer_version(name, fc.CreateLayerVersionRequest(body=body)).body


@claim
def layers_have_versions_that_are_shown_and_listed_by_pages():
    files = {"a": "1"}
    made = publish_layer("lay-a", files, checksum=str(crc64(base64.b64decode(package(files)))), description="words",
                         license="MIT", compatible_runtime=["python3.10", "custom.debian12"])
    arn = f"acs:fc:{credentials['region']}:{credentials['accountId']}:layers/lay-a/versions/1"
    assert made.layer_version_arn == arn and made.create_time.endswith("Z"), made
    for read in (sdk.get_layer_version("lay-a", "1").body, sdk.get_layer_version_by_arn(arn).body):
        a, b = read.to_map(), made.to_map()
        assert a.pop("code")["repositoryType"] == b.pop("code")["repositoryType"] == "OSS"
        assert a == b and (a["license"], a["version"], a["acl"]) == ("MIT", 1, "0"), a
    for n in range(2, 6):
        assert publish_layer("lay-a", {"a": str(n)}).version == n
    publish_layer("lay-b", files)
    publish_layer("other", files)

    names, token = [], None
    while True:
        page = sdk.list_layers(fc.ListLayersRequest(prefix="lay-", limit=1, next_token=token, official=False, public=False)).body
        names += [(layer.layer_name, layer.version) for layer in page.layers]
        token = page.next_token
        if not token:
            break
    assert names == [("lay-a", 5), ("lay-b", 1)], names
    versions, start, pages = [], None, 0
    while True:
        page = sdk.list_layer_versions("lay-a", fc.ListLayerVersionsRequest(limit=2, start_version=start)).body
        versions += [layer.version for layer in page.layers]
        start, pages = page.next_version, pages + 1
        if not start:
            break
    assert (versions, pages) == ([1, 2, 3, 4, 5], 3), (versions, pages)
    assert not sdk.list_layers(fc.ListLayersRequest(official=True)).body.layers
    refused("InvalidArgument", 400, lambda: sdk.list_layers(fc.ListLayersRequest(limit=101)))
    refused("LayerNotFound", 404, lambda: sdk.list_layer_versions("lay-none", fc.ListLayerVersionsRequest()))
    refused("LayerNotFound", 404, lambda: sdk.get_layer_version("lay-none", "1"))
    refused("LayerVersionNotFound", 404, lambda: sdk.get_layer_version("lay-a", "9"))
    refused("LayerVersionNotFound", 404, lambda: sdk.get_layer_version_by_arn(arn.replace("lay-a", "lay-none")))
    refused("InvalidArgument", 400, lambda: sdk.get_layer_version_by_arn("nonsense"))
    for wrong, named in [({"description": "x" * 257}, "description"), ({"compatible_runtime": ["no such thing"]}, "compatibleRuntime.0"),
                         ({"checksum": "1"}, "code.checksum"), ({"license": "x" * 1025}, "license")]:
        message = refused("InvalidArgument", 400, lambda: publish_layer("lay-wrong", files, **wrong))
        assert named in message, message
    assert "layerName" in refused("InvalidArgument", 400, lambda: publish_layer("9lay", files))
    def share(**members):
        sdk.put_layer_acl("lay-b", fc.PutLayerACLRequest(**members))
        return [layer.layer_name for layer in sdk.list_layers(fc.ListLayersRequest(public=True)).body.layers]

    assert [share(acl="1"), share(acl="0"), share(public="true"), share(public="false")] == [["lay-b"], [], ["lay-b"], []]
    assert "acl" in refused("InvalidArgument", 400, lambda: share(acl="7"))
    refused("LayerNotFound", 404, lambda: sdk.put_layer_acl("lay-none", fc.PutLayerACLRequest(acl="1")))
    for n in range(1, 6):
        sdk.delete_layer_version("lay-a", str(n))
    assert [layer.layer_name for layer in sdk.list_layers(fc.ListLayersRequest(prefix="lay-")).body.layers] == ["lay-b"]
    assert sdk.list_layer_versions("lay-a", fc.ListLayerVersionsRequest()).body.layers == []


@claim
def layers_are_seen_at_opt_in_the_functions_order():
    module = "NAME = '{}'\n"
    first = publish_layer("ctl-first", {"python/shared.py": module.format("first"), "only-first": "1"}, description="d", compatible_runtime=["python3.10"])
    second = publish_layer("ctl-second", {"python/shared.py": module.format("second"), "python/other.py": module.format("other")})
    assert (first.version, first.acl, first.description, first.compatible_runtime) == (1, "0", "d", ["python3.10"])
    data = urllib.request.urlopen(first.code.location, timeout=30).read()
    assert str(crc64(data)) == first.code_checksum and len(data) == first.code_size
    code = {
        "index.py": "import os, shared\ndef handler(event, context):\n    import other\n    seen = sorted(os.listdir('/opt') + os.listdir('/opt/python'))\n"
        "    try:\n        open('/opt/x', 'w')\n    except OSError as error:\n        seen.append(error.strerror)\n    return [shared.NAME, other.NAME, seen]\n"
    }
    created = create("ctl-layers", code, layers=[first.layer_version_arn, second.layer_version_arn])
    assert [(l.arn, l.size) for l in created.layers] == [(l.layer_version_arn, l.code_size) for l in (first, second)]
    name, other, seen = json.loads(invoke("ctl-layers")[2])
    assert (name, other) == ("first", "other") and "only-first" in seen and "Read-only file system" in seen, (name, other, seen)
    update("ctl-layers", layers=[second.layer_version_arn, first.layer_version_arn])
    assert json.loads(invoke("ctl-layers")[2])[0] == "second", "of two with the same path, the first in the list counts"
    assert sdk.get_layer_version_by_arn(second.layer_version_arn).body.layer_name == "ctl-second"
    sdk.delete_layer_version("ctl-second", "1")
    refused("LayerVersionNotFound", 404, lambda: sdk.get_layer_version("ctl-second", "1"))
    update("ctl-layers", description="new words")
    assert json.loads(invoke("ctl-layers")[2])[0] == "second", "a function keeps the layers it was given"
    message = refused("LayerVersionNotFound", 404, lambda: create("ctl-bad", code, layers=[second.layer_version_arn]))
    assert "layers.0" in message, message
    message = refused("InvalidArgument", 400, lambda: create("ctl-bad", code, layers=[first.layer_version_arn] * 6))
    assert "layers" in message and "5" in message, message
    assert publish_layer("ctl-second", {"a": "b"}).version == 2, "no number is used twice"
    assert [l.version for l in sdk.list_layer_versions("ctl-second", fc.ListLayerVersionsRequest()).body.layers] == [2]
    assert [l.layer_name for l in sdk.list_layers(fc.ListLayersRequest(prefix="ctl-")).body.layers] == ["ctl-first", "ctl-second"]
    update("ctl-layers", layers=[], code=fc.InputCodeLocation(zip_file=package({"index.py": "import os\ndef handler(e, c):\n    return os.listdir('/opt')\n"})))
    assert json.loads(invoke("ctl-layers")[2]) == ["lib"], "what is there for the linker, and empty"
    sdk.delete_function("ctl-layers")


@claim
def a_provision_configuration_round_trips_and_stands():
    create("ctl-ready", WHO)
    publish("ctl-ready")
    set_alias("ctl-ready", "live", "1", new=True)
    get = lambda qualifier: sdk.get_provision_config("ctl-ready", fc.GetProvisionConfigRequest(qualifier=qualifier)).body
    none = get("live").to_map()
    assert (none["target"], none["current"], none["defaultTarget"]) == (0, 0, 0), none
    action = fc.ScheduledAction(
        name="nightly", schedule_expression="cron(0 0 4 * * *)", target=1, time_zone="Asia/Shanghai",
        start_time="2036-01-01T00:00:00", end_time="2037-01-01T00:00:00",
    )
    policy = fc.TargetTrackingPolicy(
        name="busy", metric_type="CPUUtilization", metric_target=0.6, min_capacity=1, max_capacity=5,
        start_time="2036-01-01T00:00:00Z", end_time="2037-01-01T00:00:00Z",
    )
    body = fc.PutProvisionConfigInput(
        default_target=1, always_allocate_cpu=False, always_allocate_gpu=False,
        scheduled_actions=[action], target_tracking_policies=[policy],
    )
    put = lambda qualifier, body: sdk.put_provision_config("ctl-ready", fc.PutProvisionConfigRequest(qualifier=qualifier, body=body)).body
    said = put("live", body)
    assert said.function_arn.endswith(":functions/ctl-ready/live") and (said.target, said.default_target) == (1, 1)
    sent, back = body.to_map(), said.to_map()
    assert {member: back[member] for member in sent} == sent, back
    while get("live").current != 1:
        assert not get("live").current_error, get("live")
    instances = sdk.list_instances("ctl-ready", fc.ListInstancesRequest(qualifier="live")).body.instances
    assert [i.version_id for i in instances] == ["1"], instances
    put("LATEST", fc.PutProvisionConfigInput(target=0))
    listed = lambda **members: sdk.list_provision_configs(fc.ListProvisionConfigsRequest(**members)).body
    first = listed(function_name="ctl-ready", limit=1)
    second = listed(function_name="ctl-ready", limit=1, next_token=first.next_token)
    arns = [c.function_arn.rsplit("/", 1)[1] for c in first.provision_configs + second.provision_configs]
    assert arns == ["LATEST", "live"] and not second.next_token, arns
    for wrong in [
        fc.PutProvisionConfigInput(default_target=-1),
        fc.PutProvisionConfigInput(default_target=10**12),
        fc.PutProvisionConfigInput(scheduled_actions=[fc.ScheduledAction(name="a", schedule_expression="daily", target=1)]),
        fc.PutProvisionConfigInput(scheduled_actions=[action, action]),
        fc.PutProvisionConfigInput(target_tracking_policies=[fc.TargetTrackingPolicy(
            name="p", metric_type="CPUUtilization", metric_target=0.6, min_capacity=5, max_capacity=1)]),
    ]:
        refused("InvalidArgument", 400, lambda: put("live", wrong))
    assert get("live").to_map()["scheduledActions"] == back["scheduledActions"], "nothing of it was applied"
    refused("AliasNotFound", 404, lambda: put("nobody", fc.PutProvisionConfigInput(default_target=1)))
    scaling = fc.PutScalingConfigRequest(qualifier="live", body=fc.PutScalingConfigInput(min_instances=1))
    refused("ProvisionConfigExist", 409, lambda: sdk.put_scaling_config("ctl-ready", scaling))
    for qualifier in ["live", "LATEST"]:
        sdk.delete_provision_config("ctl-ready", fc.DeleteProvisionConfigRequest(qualifier=qualifier))
    assert not listed(function_name="ctl-ready").provision_configs and get("live").target == 0
    sdk.delete_function("ctl-ready")


@claim
def a_scaling_configuration_round_trips_and_closes_a_function():
    create("ctl-scaling", WHO)
    get = lambda: sdk.get_scaling_config("ctl-scaling", fc.GetScalingConfigRequest(qualifier="LATEST")).body
    assert not get().function_arn
    body = fc.PutScalingConfigInput(
        min_instances=1, enable_on_demand_scaling=False, enable_mix_mode=False, request_dispatch_policy="p",
        scheduled_policies=[fc.ScheduledPolicy(name="s", schedule_expression="at(2036-01-01T00:00:00Z)", target=2)],
        horizontal_scaling_policies=[fc.ScalingPolicy(
            name="h", metric_type="ProvisionedConcurrencyUtilization", metric_target=0.5, min_instances=1, max_instances=1,
            start_time="2036-01-01T00:00:00", time_zone="Europe/Berlin")],
    )
    put = lambda body: sdk.put_scaling_config("ctl-scaling", fc.PutScalingConfigRequest(qualifier="LATEST", body=body)).body
    back = put(body).to_map()
    assert {member: back[member] for member in body.to_map()} == body.to_map() and back["targetInstances"] == 1, back
    assert invoke("ctl-scaling")[0] == 200
    assert get().current_instances == 1
    listed = sdk.list_scaling_configs(fc.ListScalingConfigsRequest(function_name="ctl-scaling")).body.scaling_configs
    assert [c.min_instances for c in listed] == [1], listed
    put(fc.PutScalingConfigInput(min_instances=0, enable_on_demand_scaling=False))
    refused("ResourceExhausted", 429, lambda: invoke("ctl-scaling"))
    provision = fc.PutProvisionConfigRequest(qualifier="LATEST", body=fc.PutProvisionConfigInput(default_target=1))
    refused("ResidentScalingConfigExists", 409, lambda: sdk.put_provision_config("ctl-scaling", provision))
    sdk.delete_scaling_config("ctl-scaling", fc.DeleteScalingConfigRequest(qualifier="LATEST"))
    assert invoke("ctl-scaling")[0] == 200
    sdk.delete_function("ctl-scaling")


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


@claim
def sessions_are_made_read_changed_paused_listed_and_ended():
    affinity = fc.HeaderFieldSessionAffinityConfig(affinity_header_field_name="ctl-session", session_ttlin_seconds=100)
    members = {"session_affinity": "HEADER_FIELD", "session_affinity_config": json.dumps(affinity.to_map())}
    made = create("ctl-session", WHO, **members)
    assert (made.session_affinity, json.loads(made.session_affinity_config)) == ("HEADER_FIELD", affinity.to_map())

    def instance(session):
        headers = fc.InvokeFunctionHeaders(common_headers={"ctl-session": session} if session else {})
        request = fc.InvokeFunctionRequest(body=io.BytesIO(b""))
        reply = sdk.invoke_function_with_options("ctl-session", request, headers, RuntimeOptions(read_timeout=60000))
        said = {name.lower(): value for name, value in reply.headers.items()}
        return said["x-fc-instance-id"], said.get("ctl-session")

    body = fc.CreateSessionInput(session_id="one", session_idle_timeout_in_seconds=50, enable_auto_resume=True)
    session = sdk.create_session("ctl-session", fc.CreateSessionRequest(body=body)).body
    assert (session.session_id, session.session_status, session.qualifier) == ("one", "Active", "LATEST"), session
    assert (session.session_ttlin_seconds, session.session_idle_timeout_in_seconds) == (100, 50), session
    assert session.session_affinity_type == "HEADER_FIELD" and session.function_name == "ctl-session"
    assert instance("one") == (session.container_id, None) and instance("two")[0] != session.container_id
    home, name = instance(None)
    assert name and instance(name)[0] == home
    assert sdk.get_session("ctl-session", "one", fc.GetSessionRequest()).body.to_map() == session.to_map()
    body = fc.UpdateSessionInput(session_ttlin_seconds=70, enable_auto_resume=False)
    changed = sdk.update_session("ctl-session", "one", fc.UpdateSessionRequest(body=body)).body
    assert (changed.session_ttlin_seconds, changed.session_idle_timeout_in_seconds, changed.enable_auto_resume) == (70, 50, False)
    assert sdk.pause_session("ctl-session", "one", fc.PauseSessionRequest()).body.session_status == "Paused"
    refused("SessionPaused", 409, lambda: instance("one"))
    assert sdk.resume_session("ctl-session", "one", fc.ResumeSessionRequest(qualifier="LATEST")).body.session_status == "Active"
    assert instance("one")[0] == session.container_id
    page = lambda **query: sdk.list_sessions("ctl-session", fc.ListSessionsRequest(**query)).body
    first = page(limit=2, qualifier="LATEST")
    second = page(limit=2, next_token=first.next_token)
    listed = [each.session_id for each in first.sessions + second.sessions]
    assert sorted(listed) == sorted(["one", "two", name]) and not second.next_token, listed
    assert [each.session_id for each in page(session_id="two", session_status="Active").sessions] == ["two"]
    bad = fc.CreateSessionInput(session_ttlin_seconds=0)
    refusal = refused("InvalidArgument", 400, lambda: sdk.create_session("ctl-session", fc.CreateSessionRequest(body=bad)))
    assert "sessionTTLInSeconds" in refusal, refusal
    sdk.delete_session("ctl-session", "one", fc.DeleteSessionRequest())
    refused("SessionNotFound", 404, lambda: sdk.get_session("ctl-session", "one", fc.GetSessionRequest()))
    refusal = refused("InvalidArgument", 400, lambda: update("ctl-session", session_affinity_config='{"affinityHeaderFieldName":"ctl-session","sessionTTLInSeconds":0}'))
    assert "sessionAffinityConfig.sessionTTLInSeconds" in refusal, refusal
    sdk.delete_function("ctl-session")


run()
