<?php
/* The body of the request that an event stands for, as it arrives: a stream that `fread` and its kin read. */

namespace Dunlin;

final class RequestBody
{
    private const SCHEME = 'dunlin-body';

    /** Set by PHP. */
    public $context;
    private static Wire $wire;
    private Exchange $exchange;
    private string $part = '';
    /** How far into the part the reader is. */
    private int $at = 0;
    /** What was read since the host was told last. */
    private int $taken = 0;

    public static function register(Wire $wire): void
    {
        self::$wire = $wire;
        stream_wrapper_register(self::SCHEME, self::class);
    }

    /** @return resource the body of the request being served */
    public static function open()
    {
        $stream = fopen(self::SCHEME . '://', 'r');
        stream_set_chunk_size($stream, CHUNK_MAX);
        return $stream;
    }

    public function stream_open(): bool
    {
        $exchange = self::$wire->current;
        if ($exchange === null) {
            return false;
        }
        $this->exchange = $exchange;
        return true;
    }

    public function stream_read(int $count): string
    {
        while ($this->at === strlen($this->part)) {
            if ($this->stream_eof()) {
                return '';
            }
            if ($this->exchange->arrived === []) {
                self::$wire->await();
                continue;
            }
            $this->part = array_shift($this->exchange->arrived);
            $this->at = 0;
            $this->taken += HEADER_BYTES + strlen($this->part);
            if ($this->taken >= CHUNK_MAX && !$this->exchange->bodyEnded && $this->isServed()) {
                self::$wire->send(CREDIT, $this->exchange, '', pack('V', $this->taken));
                $this->taken = 0;
            }
        }
        $read = substr($this->part, $this->at, $count);
        $this->at += strlen($read);
        return $read;
    }

    public function stream_eof(): bool
    {
        $nothingComes = $this->exchange->bodyEnded || !$this->isServed();
        return $this->at === strlen($this->part) && $this->exchange->arrived === [] && $nothingComes;
    }

    public function stream_stat(): array
    {
        return [];
    }

    public function stream_set_option(): bool
    {
        return false;
    }

    /** A body that is kept after its call was answered has ended. */
    private function isServed(): bool
    {
        return self::$wire->current === $this->exchange;
    }
}
