<?php
/* `$GLOBALS['fcLogger']`: lines that carry time, request and level. */

namespace Dunlin;

final class Logger
{
    /** @var resource of our own: output buffers do not hold its lines up, and the user cannot close it. */
    private $out;

    public function __construct(private Wire $wire)
    {
        $this->out = fopen('php://stdout', 'w');
    }

    public function debug(mixed $message, array $context = []): void
    {
        $this->log('debug', $message, $context);
    }

    public function info(mixed $message, array $context = []): void
    {
        $this->log('info', $message, $context);
    }

    public function notice(mixed $message, array $context = []): void
    {
        $this->log('notice', $message, $context);
    }

    public function warn(mixed $message, array $context = []): void
    {
        $this->log('warn', $message, $context);
    }

    public function warning(mixed $message, array $context = []): void
    {
        $this->log('warning', $message, $context);
    }

    public function error(mixed $message, array $context = []): void
    {
        $this->log('error', $message, $context);
    }

    public function critical(mixed $message, array $context = []): void
    {
        $this->log('critical', $message, $context);
    }

    public function alert(mixed $message, array $context = []): void
    {
        $this->log('alert', $message, $context);
    }

    public function emergency(mixed $message, array $context = []): void
    {
        $this->log('emergency', $message, $context);
    }

    /** A level of any name. What is no text is written as JSON, and `$context` behind the message. */
    public function log(mixed $level, mixed $message, array $context = []): void
    {
        $words = [gmdate('Y-m-d\TH:i:s\Z'), $this->wire->current?->requestId ?? '', '[' . strtoupper((string) $level) . ']'];
        $words[] = is_scalar($message) || $message instanceof \Stringable ? (string) $message : self::json($message);
        if ($context !== []) {
            $words[] = self::json($context);
        }
        fwrite($this->out, implode(' ', $words) . "\n");
    }

    private static function json(mixed $value): string
    {
        $flags = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR;
        return (string) json_encode($value, $flags);
    }
}
