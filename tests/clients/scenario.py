"""The vendor's Python SDK, unmodified, against a running platform.

Usage: scenario.py CREDENTIALS_JSON. Prints one line per claim and `N passed, N failed` at the end.
"""

import base64
import io
import json
import urllib.error
import urllib.request
import zipfile

from alibabacloud_fc20230330 import models as fc

from common import ECHO, claim, client, crc64, create, credentials, host, invoke, package, refused, run, sdk


@claim
def a_function_is_created_read_called_listed_and_deleted():
    created = create("sdk-echo", ECHO, description="echo", memory_size=256, timeout=10)
    assert created.function_name == "sdk-echo" and created.memory_size == 256 and created.timeout == 10
    assert created.function_arn.endswith("functions/sdk-echo"), created.function_arn
    assert created.internet_access is True and created.cpu is None and not created.layers
    read = sdk.get_function("sdk-echo", fc.GetFunctionRequest()).body
    assert read.to_map() == created.to_map(), (read.to_map(), created.to_map())
    status, headers, body = invoke("sdk-echo", b"\x00\xffbytes")
    assert (status, body) == (200, b"\x00\xffbytes"), (status, body)
    assert headers["x-fc-request-id"].startswith("1-") and headers["x-fc-instance-id"].startswith("c-")
    assert float(headers["x-fc-invocation-duration"]) >= 0 and float(headers["x-fc-max-memory-usage"]) > 0
    assert headers["x-fc-code-checksum"] == read.code_checksum and "server-timing" in headers
    listed = sdk.list_functions(fc.ListFunctionsRequest(prefix="sdk-")).body.functions
    assert [f.function_name for f in listed] == ["sdk-echo"]
    assert sdk.delete_function("sdk-echo").status_code in (200, 204)
    refused("FunctionNotFound", 404, lambda: sdk.get_function("sdk-echo", fc.GetFunctionRequest()))


@claim
def an_update_changes_what_the_next_call_runs():
    create("sdk-update", ECHO)
    assert invoke("sdk-update", b"1")[2] == b"1"
    code = fc.InputCodeLocation(zip_file=package({"index.py": "import os\ndef handler(e, c):\n    return os.environ['GREETING']\n"}))
    body = fc.UpdateFunctionInput(code=code, environment_variables={"GREETING": "hello"}, timeout=7)
    updated = sdk.update_function("sdk-update", fc.UpdateFunctionRequest(body=body)).body
    assert updated.timeout == 7 and updated.environment_variables == {"GREETING": "hello"}
    assert invoke("sdk-update")[2] == b"hello"
    sdk.delete_function("sdk-update")


@claim
def the_code_can_be_downloaded_and_its_checksum_is_crc64():
    created = create("sdk-code", ECHO)
    body = sdk.get_function_code("sdk-code", fc.GetFunctionCodeRequest()).body
    data = urllib.request.urlopen(body.url, timeout=30).read()
    assert zipfile.ZipFile(io.BytesIO(data)).read("index.py").decode() == ECHO["index.py"]
    assert body.checksum == created.code_checksum == str(crc64(data))
    sdk.delete_function("sdk-code")


@claim
def a_failing_function_is_status_200_with_an_error_type_and_the_contracts_body():
    create("sdk-fails", {"index.py": "def handler(event, context):\n    raise ValueError('no such luck')\n"})
    status, headers, body = invoke("sdk-fails")
    error = json.loads(body)
    assert status == 200 and headers["x-fc-error-type"] == "UnhandledInvocationError"
    assert error["errorMessage"] == "no such luck" and error["errorType"] == "ValueError", error
    assert error["stackTrace"] == [['File "/code/index.py"', "line 2", "in handler", "raise ValueError('no such luck')"]], error
    sdk.delete_function("sdk-fails")


@claim
def the_log_tail_holds_what_the_call_printed():
    create("sdk-logs", {"index.py": "import logging\ndef handler(e, c):\n    print('plain line')\n    logging.getLogger().info('logged line')\n    return 'x'\n"})
    _, headers, _ = invoke("sdk-logs", log_type="Tail")
    tail = base64.b64decode(headers["x-fc-log-result"]).decode()
    rid = headers["x-fc-request-id"]
    for part in (f"FC Invoke Start RequestId: {rid}", "plain line", f"{rid} [INFO] logged line", f"FC Invoke End RequestId: {rid}", "Billed Duration:", "Memory Size: 128 MB"):
        assert part in tail, (part, tail)
    refused("InvalidArgument", 400, lambda: invoke("sdk-logs", log_type="Head"))
    sdk.delete_function("sdk-logs")


@claim
def node_and_custom_runtimes_answer_too():
    create("sdk-node", {"index.js": "exports.handler = (event, context, callback) => callback(null, {got: event.toString(), fn: context.function.name});\n"}, runtime="nodejs20")
    assert json.loads(invoke("sdk-node", b"hi")[2]) == {"got": "hi", "fn": "sdk-node"}
    server = "#!/usr/bin/env python3\nimport os\nfrom http.server import *\nclass H(BaseHTTPRequestHandler):\n    protocol_version = 'HTTP/1.1'\n    def do_POST(self):\n        body = b'custom:' + self.rfile.read(int(self.headers.get('content-length') or 0))\n        self.send_response(200); self.send_header('content-length', str(len(body))); self.end_headers(); self.wfile.write(body)\n    def log_message(self, *a): pass\nThreadingHTTPServer(('0.0.0.0', int(os.environ['FC_CUSTOM_LISTEN_PORT'])), H).serve_forever()\n"
    create("sdk-custom", {"bootstrap": server}, runtime="custom.debian12", handler="", timeout=10)
    assert invoke("sdk-custom", b"hi")[2] == b"custom:hi"
    sdk.delete_function("sdk-node")
    sdk.delete_function("sdk-custom")


@claim
def http_triggers_are_created_called_read_updated_and_deleted():
    create("sdk-http", {"index.py": "import json\ndef handler(event, context):\n    e = json.loads(event)\n    return {'statusCode': 201, 'headers': {'x-path': e['rawPath']}, 'body': e['requestContext']['http']['method']}\n"})
    config = json.dumps({"authType": "anonymous", "methods": ["GET", "POST"]})
    body = fc.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config=config)
    trigger = sdk.create_trigger("sdk-http", fc.CreateTriggerRequest(body=body)).body
    assert trigger.trigger_type == "http" and json.loads(trigger.trigger_config) == json.loads(config)
    url = urllib.parse.urlsplit(trigger.http_trigger.url_internet)

    def fetch(method, path):
        request = urllib.request.Request(f"http://{host}{path}", method=method, headers={"Host": url.netloc})
        try:
            return urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            return error

    reply = fetch("GET", "/a%20b?x=1")
    assert reply.status == 201 and reply.headers["x-path"] == "/a%20b" and reply.read() == b"GET", reply.status
    reply = fetch("PUT", "/")
    assert reply.status == 405 and json.loads(reply.read())["Code"] == "MethodNotAllowed"
    refused("FunctionNotEmpty", 409, lambda: sdk.delete_function("sdk-http"))
    update = fc.UpdateTriggerInput(trigger_config=json.dumps({"authType": "function", "methods": ["GET"]}))
    sdk.update_trigger("sdk-http", "web", fc.UpdateTriggerRequest(body=update))
    assert fetch("GET", "/").status == 403
    assert [t.trigger_name for t in sdk.list_triggers("sdk-http", fc.ListTriggersRequest()).body.triggers] == ["web"]
    assert sdk.get_trigger("sdk-http", "web").body.trigger_id == trigger.trigger_id
    sdk.delete_trigger("sdk-http", "web")
    assert fetch("GET", "/").status == 404
    sdk.delete_function("sdk-http")


@claim
def lists_are_paged_by_prefix():
    names = [f"sdk-page-{n}" for n in range(5)]
    for name in names:
        create(name, ECHO)
    seen, token = [], None
    while True:
        page = sdk.list_functions(fc.ListFunctionsRequest(prefix="sdk-page-", limit=2, next_token=token)).body
        seen += [f.function_name for f in page.functions]
        token = page.next_token
        if not token:
            break
    assert seen == names, seen
    for name in names:
        sdk.delete_function(name)


@claim
def instances_and_regions_are_listed():
    create("sdk-instances", ECHO)
    _, headers, _ = invoke("sdk-instances")
    listed = sdk.list_instances("sdk-instances", fc.ListInstancesRequest()).body.instances
    assert headers["x-fc-instance-id"] in [i.instance_id for i in listed], listed
    assert listed[0].version_id == "0" and listed[0].status
    regions = sdk.describe_regions(fc.DescribeRegionsRequest()).body.regions.region
    assert credentials["region"] in [r.region_id for r in regions]
    sdk.delete_function("sdk-instances")


@claim
def errors_carry_the_contracts_codes():
    create("sdk-errors", ECHO)
    refused("FunctionAlreadyExists", 409, lambda: create("sdk-errors", ECHO))
    message = refused("InvalidArgument", 400, lambda: create("sdk-bad", ECHO, memory_size=100))
    assert "memorySize" in message, message
    message = refused("InvalidArgument", 400, lambda: create("sdk-bad", {}, runtime="cobol"))
    assert "runtime" in message, message
    refused("FunctionNotFound", 404, lambda: invoke("absent"))
    refused("VersionNotFound", 404, lambda: invoke("sdk-errors", qualifier="7"))
    refused("AliasNotFound", 404, lambda: invoke("sdk-errors", qualifier="prod"))
    refused("TriggerNotFound", 404, lambda: sdk.get_trigger("sdk-errors", "absent"))
    sdk.delete_function("sdk-errors")


@claim
def a_wrong_secret_and_an_unknown_key_are_refused():
    wrong = client(access_key_secret="x" * 30)
    refused("SignatureNotMatch", 403, lambda: wrong.list_functions(fc.ListFunctionsRequest()))
    unknown = client(access_key_id="LTAIunknownunknown")
    refused("InvalidAccessKeyID", 403, lambda: unknown.list_functions(fc.ListFunctionsRequest()))


@claim
def other_operations_say_that_they_are_not_supported_yet():
    refusals = [
        lambda: sdk.list_async_tasks('sdk-none', fc.ListAsyncTasksRequest()),
    ]
    for call in refusals:
        try:
            call()
        except Exception as error:
            assert "not supported" in str(error), error
        else:
            raise AssertionError("the operation answered")


run()
