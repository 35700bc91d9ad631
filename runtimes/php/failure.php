<?php
/* How a handler's end is told to its caller and to the log (contract section 5.1). */

namespace Dunlin;

const UNHANDLED = 'UnhandledInvocationError', INITIALIZATION = 'InitializationError';
const MESSAGE_BYTES_MAX = 64 << 10;
const TRACE_LINES_MAX = 100;
/** What ends a script without anything that could be caught. */
const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR;

/** A failure this bootstrap words itself: it has no stack of the user's. */
final class Failure extends \Exception
{
    public function __construct(public string $kind, string $message)
    {
        parent::__construct($message);
    }
}

/** JSON of a result. */
function encoded(mixed $value): string
{
    return json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION);
}

/** The error's body. Must not fail, whatever the user's exception does. */
function errorBody(string $kind, string $message, string $file, int $line, string $trace): string
{
    $body = ['errorMessage' => $message, 'errorType' => $kind];
    $body['stackTrace'] = ['file' => $file, 'line' => $line, 'traceString' => $trace];
    return json_encode($body, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE);
}

/** The error's body, and what the log gets. */
function describe(\Throwable $thrown): array
{
    if ($thrown instanceof Failure) {
        return [errorBody($thrown->kind, $thrown->getMessage(), '', 0, ''), $thrown->getMessage()];
    }
    [$kind, $message, $trace] = [kindOf($thrown), messageOf($thrown), traceOf($thrown)];
    $report = "PHP Fatal error:  Uncaught $kind: $message in {$thrown->getFile()}:{$thrown->getLine()}\nStack trace:\n$trace";
    $cause = $thrown;
    while (($cause = $cause->getPrevious()) !== null) {
        $report .= "\nCaused by: " . kindOf($cause) . ': ' . messageOf($cause) . " in {$cause->getFile()}:{$cause->getLine()}";
    }
    return [errorBody($kind, $message, $thrown->getFile(), $thrown->getLine(), $trace), substr($report, 0, 2 * MESSAGE_BYTES_MAX)];
}

/** The class of an exception; one without a name has its file behind a NUL. */
function kindOf(\Throwable $thrown): string
{
    return strstr($thrown::class, "\0", true) ?: $thrown::class;
}

/** The text of an exception, which a class may have put anything in the place of. */
function messageOf(\Throwable $thrown): string
{
    try {
        $message = (string) $thrown->getMessage();
    } catch (\Throwable) {
        return '(this exception has no text)';
    }
    return strlen($message) > MESSAGE_BYTES_MAX ? substr($message, 0, MESSAGE_BYTES_MAX) . '…' : $message;
}

/** PHP's own stack trace, down to where this bootstrap called. */
function traceOf(\Throwable $thrown): string
{
    $lines = [];
    foreach (explode("\n", $thrown->getTraceAsString()) as $line) {
        [$number, $rest] = explode(' ', $line, 2) + [1 => ''];
        if (str_starts_with($rest, __DIR__ . '/')) {
            [, $call] = explode('): ', $rest, 2);
            if (!str_starts_with($call, 'require_once(')) {
                $lines[] = "$number [internal function]: $call";
            }
            break;
        }
        if ($rest === '{main}') {
            break;
        }
        $lines[] = $line;
    }
    if (count($lines) > TRACE_LINES_MAX) {
        array_splice($lines, TRACE_LINES_MAX / 2, count($lines) - TRACE_LINES_MAX, ['…']);
    }
    $lines[] = '#' . count($lines) . ' {main}';
    return implode("\n", $lines);
}
