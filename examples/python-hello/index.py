import json
import logging

logger = logging.getLogger()


def handler(event, context):
    """Answers a call through a function URL, the API or the command line."""
    logger.info("called with %d bytes", len(event))
    name = "world"
    if event.startswith(b"{"):
        request = json.loads(event)
        name = request.get("queryParameters", {}).get("name", name)
    elif event:
        name = event.decode()
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": f"hello {name} from Python\n"}
