"""What the scenarios share: the vendor's Python SDK against the platform that the first argument's credentials name."""

import base64
import io
import json
import sys
import traceback
import zipfile

from alibabacloud_fc20230330.client import Client
from alibabacloud_fc20230330 import models as fc
from alibabacloud_tea_openapi import models as openapi
from alibabacloud_tea_openapi.models import Config
from alibabacloud_tea_util.models import RuntimeOptions

with open(sys.argv[1], encoding="utf-8") as file:
    credentials = json.load(file)
host = credentials["endpoint"].removeprefix("http://")


def client(**changes):
    settings = {
        "access_key_id": credentials["accessKeyId"],
        "access_key_secret": credentials["accessKeySecret"],
        "endpoint": host,
        "protocol": "http",
        "region_id": credentials["region"],
        "read_timeout": 60000,
        **changes,
    }
    return Client(Config(**settings))


sdk = client()


def package(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if name == "bootstrap" else 0o100644) << 16
            archive.writestr(entry, text)
    return base64.b64encode(buffer.getvalue()).decode()


def create(name, files, runtime="python3.10", handler="index.handler", **members):
    code = fc.InputCodeLocation(zip_file=package(files))
    body = fc.CreateFunctionInput(function_name=name, runtime=runtime, handler=handler, code=code, **members)
    return sdk.create_function(fc.CreateFunctionRequest(body=body)).body


def invoke(name, event=b"", log_type=None, qualifier=None, sdk=sdk):
    headers = fc.InvokeFunctionHeaders(x_fc_log_type=log_type)
    request = fc.InvokeFunctionRequest(body=io.BytesIO(event), qualifier=qualifier)
    reply = sdk.invoke_function_with_options(name, request, headers, RuntimeOptions(read_timeout=60000))
    return reply.status_code, {k.lower(): v for k, v in reply.headers.items()}, reply.body.read()


def get(path):
    """What the API answers at a path, members that the SDK does not know included."""
    params = openapi.Params(
        action="Get", version="2023-03-30", protocol="HTTP", pathname=f"/2023-03-30{path}", method="GET",
        auth_type="AK", style="ROA", req_body_type="json", body_type="json",
    )
    return sdk.call_api(params, openapi.OpenApiRequest(), RuntimeOptions())["body"]


def refused(code, status, call):
    try:
        call()
    except Exception as error:  # the SDK raises different classes by status
        actual = getattr(error, "code", None), getattr(error, "status_code", None) or getattr(error, "statusCode", None)
        assert actual[0] == code, f"{actual} instead of {code}: {error}"
        assert str(status) in str(error) or actual[1] == status, f"status of {error}"
        return str(error)
    raise AssertionError(f"{code} was expected, but the call succeeded")


def crc64(data):
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xC96C5795D7870F42 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFFFFFFFFFF


claims = []


def claim(function):
    claims.append(function)
    return function


ECHO = {"index.py": "def handler(event, context):\n    return event\n"}


def run():
    """Checks every claim. Prints one line for each and `N passed, N failed` at the end."""
    failed = 0
    for check in claims:
        try:
            check()
            print(f"ok   {check.__name__}")
        except Exception:
            failed += 1
            print(f"FAIL {check.__name__}\n{traceback.format_exc()}")
    print(f"{len(claims) - failed} passed, {failed} failed")
    sys.exit(failed > 0)
