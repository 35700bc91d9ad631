"""What a bootstrap loads and calls before it says Ready, in the place of a function."""

import json
import os


def handler(event, context):
    return "%s %d" % (context.request_id, len(event))
