<?php
/* Frames in, frames out, as docs/design/wire.md has them. */

namespace Dunlin;

const LOAD = 2, INIT = 3, INVOKE = 4, CHUNK = 5, CANCEL = 6, PRE_STOP = 7, GRANT = 8;
const READY = 16, HEAD = 17, END = 18, ERROR = 19, CREDIT = 20;
const MORE = 1;

const HEADER_BYTES = 32;
const NO_TOKEN = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/** Bytes of Chunk frames, headers included, that may be on their way in either direction. */
const WINDOW = 256 << 10;
const CHUNK_MAX = 64 << 10;
/** Bodies up to this size are copied beside their header and written at once. */
const SMALL = 16 << 10;

/** One request in flight. */
final class Exchange
{
    public string $requestId = '';
    /** How much of an answer in parts the host takes now. */
    public int $credit = WINDOW;
    /** The parts of the request's body that nobody has read yet. */
    public array $arrived = [];
    public bool $bodyEnded;

    public function __construct(public int $kind, public int $stream, public string $token, int $flags)
    {
        $this->bodyEnded = ($flags & MORE) === 0;
    }
}

/** The channel, and what arrives for the request being served. */
final class Wire
{
    /** The request being served, until it is answered. */
    public ?Exchange $current = null;
    private int $pid;

    /** @param resource $channel */
    public function __construct(private $channel)
    {
        $this->pid = getmypid();
        stream_set_chunk_size($channel, CHUNK_MAX);
    }

    /** Whether this is the process that read the request, and not one that user code forked. */
    public function isOurs(): bool
    {
        return getmypid() === $this->pid;
    }

    /** Waits for a request: the exchange, its head and its body. Null when the host has let go. */
    public function request(): ?array
    {
        while (($frame = $this->read()) !== null) {
            [$kind, $flags, $stream, $token, $head, $body] = $frame;
            if ($kind === LOAD || $kind === INIT || $kind === INVOKE || $kind === PRE_STOP) {
                return [$this->current = new Exchange($kind, $stream, $token, $flags), $head, $body];
            }
            if (!$this->note($frame)) {
                return null;
            }
        }
        return null;
    }

    /** Answers the request being served. */
    public function answer(int $kind, string $head, string $body): void
    {
        $exchange = $this->current;
        $this->current = null;
        $this->send($kind, $exchange, $head, $body);
    }

    public function send(int $kind, ?Exchange $exchange, string $head, string $body): void
    {
        if (!$this->isOurs()) {
            exit(0);
        }
        $first = pack('CCvVVV', $kind, 0, 0, $exchange->stream ?? 0, strlen($head), strlen($body));
        $first .= ($exchange->token ?? NO_TOKEN) . $head;
        if (strlen($body) <= SMALL) {
            $this->write($first . $body);
        } else {
            $this->write($first);
            $this->write($body);
        }
    }

    /** Sends an answer in parts, each as soon as it is there and the host takes it. */
    public function sendParts(array $head, iterable $parts): void
    {
        $exchange = $this->current;
        $this->send(HEAD, $exchange, encoded((object) $head), '');
        foreach ($parts as $part) {
            if (!is_string($part)) {
                throw new \TypeError(get_debug_type($part) . ' is no part of an answer: it must be a string');
            }
            for ($at = 0; $at < strlen($part); $at += CHUNK_MAX) {
                $piece = substr($part, $at, CHUNK_MAX);
                $exchange->credit -= HEADER_BYTES + strlen($piece);
                while ($exchange->credit < 0) {
                    $this->await();
                }
                $this->send(CHUNK, $exchange, '', $piece);
            }
        }
    }

    /** Waits for news of the request being served. */
    public function await(): void
    {
        $frame = $this->read();
        if ($frame === null || !$this->note($frame)) {
            exit(0);
        }
    }

    /** Takes in what concerns a request in flight; what comes for one that has been answered is dropped. False for a frame
     * that is none of these. */
    private function note(array $frame): bool
    {
        [$kind, $flags, $stream, , , $body] = $frame;
        $exchange = $this->current?->stream === $stream ? $this->current : null;
        if ($kind === GRANT && $exchange !== null) {
            $exchange->credit += unpack('V', $body)[1];
        } elseif ($kind === CHUNK && $exchange !== null) {
            $exchange->arrived[] = $body;
            $exchange->bodyEnded = ($flags & MORE) === 0;
        }
        return $kind === GRANT || $kind === CHUNK || $kind === CANCEL;
    }

    /** The next frame: kind, flags, stream, token, head and body. Null at the end. */
    private function read(): ?array
    {
        $header = stream_get_contents($this->channel, HEADER_BYTES);
        if ($header === false || strlen($header) < HEADER_BYTES) {
            return null;
        }
        $said = unpack('Ckind/Cflags/x2/Vstream/Vhead/Vbody', $header);
        $head = $said['head'] === 0 ? '' : stream_get_contents($this->channel, $said['head']);
        $body = $said['body'] === 0 ? '' : stream_get_contents($this->channel, $said['body']);
        if (strlen($head) < $said['head'] || strlen($body) < $said['body']) {
            return null;
        }
        return [$said['kind'], $said['flags'], $said['stream'], substr($header, 16), $head, $body];
    }

    /** Writes all of it. A signal may come in the middle of a large body. */
    private function write(string $bytes): void
    {
        while (($sent = fwrite($this->channel, $bytes)) !== strlen($bytes)) {
            if ($sent === false) {
                exit(0);
            }
            $bytes = substr($bytes, $sent);
        }
    }
}
