import os

import words


def handler(event, context):
    return words.sentence(os.environ["GREETING"], os.environ["WHO"])
