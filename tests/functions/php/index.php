<?php

/** What the initializer left. */
$greeting = 'hello';

function initializer($context)
{
    global $greeting;
    $greeting = "hello, once initialized for {$context['function']['memory']} MB,";
}

function pre_stop($context)
{
    echo "stopping\n";
}

function handler($event, $context)
{
    switch ($event) {
        case 'throw':
            throw new DomainException('oops');
        case 'exit':
            exit(3);
        case 'fatal':
            ini_set('memory_limit', '8M');
            return strlen(str_repeat('x', 16 << 20));
        case 'keep':
            ini_set('memory_limit', '-1');
            return strlen(str_repeat('x', 1 << 30));
        case 'litter':
            for ($i = 0; $i < 40; $i++) {
                $litter = str_repeat('x', 10 << 20);
            }
            return 'littered';
        case 'notice':
            return 'noticed ' . @$context['nothing'] . $undefined;
        case 'extensions':
            return get_loaded_extensions();
        case 'walls':
            return walls();
        case 'response':
            return ['statusCode' => 201, 'headers' => [], 'body' => base64_encode("\xff\x00"), 'isBase64Encoded' => true];
    }
    $request = json_decode($event, true);
    if (!isset($request['rawPath'])) {
        return "$GLOBALS[greeting] $event";
    }
    return ['statusCode' => 200, 'headers' => ['content-type' => 'text/event-stream'], 'body' => events()];
}

function events()
{
    yield "data: 1\n\n";
    while (!file_exists('/tmp/released')) {
        usleep(1000);
    }
    yield "data: 2\n\n";
}

/** Each is empty unless something was possible that must not be. */
function walls()
{
    return [
        'read' => (string) @file_get_contents('/etc/shadow'),
        'settings' => implode(' ', array_diff(array_merge(...array_map('scandir', ['/etc/php', '/etc/php/8.2'])), ['.', '..', '8.2', 'cli', 'mods-available'])),
        'code' => @file_put_contents('/code/index.php', '') === false ? '' : 'written',
        'settings of ours' => @file_put_contents('/rt/php/php.ini', '') === false ? '' : 'written',
        'root' => posix_getuid() === 0 ? 'root' : '',
        'processes' => implode(' ', preg_grep('/^\d+$/', array_diff(scandir('/proc'), [getmypid(), 1]))),
        'network' => @stream_socket_client('tcp://1.1.1.1:80', $code, $why, 1) === false ? '' : 'connected',
        'native' => FFI::cdef('int unshare(int);', 'libc.so.6')->unshare(0x10000000) === -1 ? '' : 'unshared',
    ];
}
