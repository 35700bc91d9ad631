<?php
/*
 * The PHP bootstrap: loads the user's file and answers calls on descriptor 3 (docs/design/wire.md).
 *
 * Runs as `php -c php.ini bootstrap.php`, says Ready, and serves one call at a time until the host closes the channel: PHP
 * has no threads.
 *
 * What always holds:
 * - A call is answered once, also when PHP ends the script for a mistake that nothing can catch.
 * - What was printed is in the pipe before an answer is written: the host has a call's output before its answer.
 * - A process that user code forked never answers: only the process that read a request writes its answer.
 * - Nothing of ours is in the user's way: no global variable, and no name outside the namespace `Dunlin`.
 */

namespace Dunlin;

require __DIR__ . '/wire.php';
require __DIR__ . '/body.php';
require __DIR__ . '/failure.php';
require __DIR__ . '/logger.php';
require __DIR__ . '/instance.php';

// The user's files are included here and not in a function: the variables at their top are global.
for (Instance::start(); Instance::$files->valid(); Instance::$files->next()) {
    try {
        require_once Instance::$files->current();
    } catch (\Throwable $dunlin_thrown) {
        Instance::$thrown = $dunlin_thrown;
        unset($dunlin_thrown);
    }
}
