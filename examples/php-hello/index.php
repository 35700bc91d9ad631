<?php

/** Answers a call through a function URL, the API or the command line. */
function handler($event, $context)
{
    $GLOBALS['fcLogger']->info('called with ' . strlen($event) . ' bytes');
    $name = $event === '' ? 'world' : $event;
    if (str_starts_with($event, '{')) {
        $name = json_decode($event, true)['queryParameters']['name'] ?? 'world';
    }
    return ['statusCode' => 200, 'headers' => ['content-type' => 'text/plain'], 'body' => "hello $name from PHP\n"];
}
