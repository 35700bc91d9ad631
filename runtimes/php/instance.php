<?php
/* One function's code and hooks, and the call being served. */

namespace Dunlin;

const RESULT_MAX = 32 << 20;

final class Instance
{
    /** The user's files to include, as they are asked for. Whatever an instance does happens while the next one is sought. */
    public static \Generator $files;
    /** What including the last file threw. */
    public static ?\Throwable $thrown = null;

    private array $load = [];
    private string $code = '/code';
    /** The user's handler, as a name or a method. */
    private string $handler = '';
    /** The members of a context that are the same in every call. */
    private array $context = [];
    /** @var resource of our own, which the user cannot close. */
    private $errors;

    public static function start(): void
    {
        $wire = new Wire(fopen('php://fd/3', 'r+'));
        $instance = new self($wire);
        RequestBody::register($wire);
        register_shutdown_function($instance->end(...));
        $GLOBALS['fcLogger'] = new Logger($wire);
        self::$files = $instance->serve();
    }

    private function __construct(private Wire $wire)
    {
        $this->errors = fopen('php://stderr', 'w');
    }

    /** Serves requests until the host lets go. Yields files to include, and goes on when they are. */
    private function serve(): \Generator
    {
        $this->wire->send(READY, null, encoded(['runtime' => 'php ' . PHP_VERSION]), '');
        while (($request = $this->wire->request()) !== null) {
            [$exchange, $head, $body] = $request;
            // The event is the user's now: nothing of ours keeps a large one alive until the next call.
            $request = null;
            try {
                $input = json_decode($head, true, 16, JSON_THROW_ON_ERROR);
                if ($exchange->kind === LOAD) {
                    yield from $this->begin($input);
                    $this->succeed('');
                    continue;
                }
                $exchange->requestId = $input['requestId'];
                if ($exchange->kind === INVOKE) {
                    $this->invoke($exchange, $input, $body);
                } else {
                    $hook = yield from $this->find($this->load[$exchange->kind === INIT ? 'initializer' : 'preStop']);
                    $hook($this->contextOf($input));
                    $this->succeed('');
                }
            } catch (\Throwable $thrown) {
                $this->fail($thrown);
            }
            $thrown = $body = null;
        }
    }

    private function invoke(Exchange $exchange, array $input, string $event): void
    {
        $_SERVER['REQUEST_TIME_FLOAT'] = microtime(true);
        $_SERVER['REQUEST_TIME'] = (int) $_SERVER['REQUEST_TIME_FLOAT'];
        $context = $this->contextOf($input);
        if (!$exchange->bodyEnded) {
            $context['body'] = RequestBody::open();
        }
        $result = ($this->handler)($event, $context);
        if (!is_string($result)) {
            if (is_array($result) && isset($result['statusCode']) && ($result['headers'] ?? null) === []) {
                // An empty array would become a list.
                $result['headers'] = (object) [];
            }
            $streamed = self::inParts($result);
            if ($streamed !== null) {
                $result = null;
                $this->wire->sendParts(...$streamed);
                $this->succeed('');
                return;
            }
            $result = encoded($result);
        }
        if (strlen($result) > RESULT_MAX) {
            $message = 'The result is ' . strlen($result) . ' bytes, more than the limit of ' . RESULT_MAX . ' bytes';
            throw new Failure('FunctionError', $message);
        }
        $this->succeed($result);
    }

    /** Makes the process look as the function's own, and loads it. */
    private function begin(array $load): \Generator
    {
        $this->load = $load;
        $this->code = $load['codePath'];
        $this->setEnvironment($load['env']);
        chdir($this->code);
        set_include_path(".:{$this->code}:/opt/php:" . get_include_path());
        $this->context = [
            'function' => array_diff_key($load['function'], ['versionId' => 0, 'qualifier' => 0]),
            'service' => $load['service'],
            'region' => $load['region'],
            'accountId' => $load['accountId'],
            'tracing' => ['openTracingSpanContext' => '', 'openTracingSpanBaggages' => [], 'jaegerEndpoint' => ''],
        ];
        if (isset($load['initializer'])) {
            $this->context['function']['initializer'] = $load['initializer'];
            $this->context['function']['initializationTimeout'] = (int) $load['env']['FC_INITIALIZATION_TIMEOUT'];
        }
        if (is_file("{$this->code}/vendor/autoload.php")) {
            yield from $this->include("{$this->code}/vendor/autoload.php");
        }
        $this->handler = yield from $this->find($load['handler']);
    }

    private function setEnvironment(array $env): void
    {
        // What the process was started with is among these.
        foreach ($env as $name => $value) {
            putenv("$name=$value");
            $_SERVER[$name] = $value;
        }
        $_ENV = $env;
        if (isset($env['TZ'])) {
            @date_default_timezone_set($env['TZ']);
        }
    }

    /** Loads what `file.function` names, and answers what to call. Folders are written with slashes. */
    private function find(string $name): \Generator
    {
        $dot = strrpos($name, '.');
        if (!$dot || $dot === strlen($name) - 1) {
            throw new Failure('HandlerNotFound', "Handler '$name' is not of the form 'file.function'");
        }
        [$file, $function] = [substr($name, 0, $dot), substr($name, $dot + 1)];
        $source = "{$this->code}/$file.php";
        if (!is_file($source)) {
            throw new Failure('ModuleNotFoundError', "Cannot find module '{$this->code}/$file'");
        }
        foreach (['SCRIPT_FILENAME', 'SCRIPT_NAME', 'PHP_SELF', 'PATH_TRANSLATED'] as $member) {
            $_SERVER[$member] = $source;
        }
        $GLOBALS['argv'] = $_SERVER['argv'] = [$source];
        yield from $this->include($source);
        if (!is_callable($function)) {
            throw new Failure('HandlerNotFound', "Handler '$function' missing on module '$file'");
        }
        return $function;
    }

    /** Has a file included, once. What that throws is thrown here. */
    private function include(string $file): \Generator
    {
        yield $file;
        [$thrown, self::$thrown] = [self::$thrown, null];
        if ($thrown !== null) {
            throw $thrown;
        }
    }

    /** What a call's second argument is (contract section 7.4). */
    private function contextOf(array $call): array
    {
        $none = ['accessKeyId' => '', 'accessKeySecret' => '', 'securityToken' => ''];
        return [
            'requestId' => $call['requestId'],
            'credentials' => $call['credentials'] ?? $none,
            'retryCount' => $call['retryCount'],
        ] + $this->context;
    }

    /** Head and parts of an answer in parts: an iterator's (a generator is one) or an open stream's, alone or as the body of a
     * response. Null for everything else. */
    private static function inParts(mixed $result): ?array
    {
        $parts = is_array($result) && isset($result['statusCode']) ? $result['body'] ?? null : $result;
        if (is_resource($parts) && get_resource_type($parts) === 'stream') {
            $parts = self::partsOf($parts);
        }
        if (!$parts instanceof \Iterator || $parts instanceof \JsonSerializable) {
            return null;
        }
        return [is_array($result) ? array_diff_key($result, ['body' => 0, 'isBase64Encoded' => 0]) : [], $parts];
    }

    /** @param resource $stream */
    private static function partsOf($stream): \Generator
    {
        try {
            while (!feof($stream) && ($part = fread($stream, CHUNK_MAX)) !== false) {
                yield $part;
            }
        } finally {
            fclose($stream);
        }
    }

    private function succeed(string $result): void
    {
        $this->tidy();
        $this->wire->answer(END, '', $result);
    }

    private function fail(\Throwable $thrown): void
    {
        [$body, $report] = describe($thrown);
        fwrite($this->errors, "$report\n");
        $this->tidy();
        $this->answerError($body, []);
    }

    private function answerError(string $body, array $more): void
    {
        $type = $this->wire->current->kind === INIT ? INITIALIZATION : UNHANDLED;
        $this->wire->answer(ERROR, encoded(['errorType' => $type] + $more), $body);
    }

    /** Writes out what the user has put into buffers, and stops the clock of a `set_time_limit`. */
    private function tidy(): void
    {
        while (ob_get_level() > 0) {
            ob_end_flush();
        }
        if (ini_get('max_execution_time') !== '0') {
            set_time_limit(0);
        }
    }

    /** PHP ends the script. When that is for a mistake which nothing could catch, PHP has told the log, and this tells the
     * caller; of an `exit` the host reads the status. */
    private function end(): void
    {
        $last = error_get_last();
        if ($this->wire->current === null || !$this->wire->isOurs() || $last === null || ($last['type'] & FATAL) === 0) {
            return;
        }
        ini_set('memory_limit', '-1');
        $body = errorBody('FatalError', substr($last['message'], 0, MESSAGE_BYTES_MAX), $last['file'], $last['line'], '#0 {main}');
        $this->answerError($body, ['fatal' => true]);
    }
}
