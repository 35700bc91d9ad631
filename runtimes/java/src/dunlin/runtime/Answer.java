package dunlin.runtime;

import java.io.IOException;
import java.io.OutputStream;
import java.util.Arrays;

/**
 * Where a handler writes its answer. Nothing written after the end reaches anybody.
 *
 * <p>Where the caller takes an answer in parts, what was written goes out when the handler flushes it or when it fills a
 * part; elsewhere it goes out as a whole.
 */
final class Answer extends OutputStream {
    private static final int ARRAY_MAX = Integer.MAX_VALUE - 8;
    private static final byte[] NO_RESPONSE_OBJECT = {'{', '}'};
    private static final int PART = Channel.WINDOW / 4;

    private final Exchange exchange;
    private boolean inParts;
    private boolean begun;
    private byte[] bytes = Channel.NOTHING;
    private int length;
    private boolean over;

    Answer(Exchange exchange) {
        this.exchange = exchange;
    }

    /** The caller takes parts. */
    synchronized void allowParts() {
        inParts = true;
    }

    /** Begins with a response object that lacks its body, which follows in parts whether the caller takes them or not. */
    synchronized void begin(byte[] head) throws IOException {
        begun = true;
        inParts = true;
        exchange.begin(head);
    }

    @Override
    public synchronized void flush() throws IOException {
        if (over || !inParts || length == 0) {
            return;
        }
        if (!begun) {
            begin(NO_RESPONSE_OBJECT);
        }
        for (int at = 0; at < length; at += PART) {
            exchange.part(bytes, at, Math.min(PART, length - at));
        }
        length = 0;
    }

    @Override
    public synchronized void write(int value) throws IOException {
        room(1);
        bytes[length++] = (byte) value;
        if (inParts && length >= PART) {
            flush();
        }
    }

    @Override
    public synchronized void write(byte[] source, int from, int count) throws IOException {
        if (from < 0 || count < 0 || count > source.length - from) {
            throw new IndexOutOfBoundsException();
        }
        room(count);
        System.arraycopy(source, from, bytes, length, count);
        length += count;
        if (inParts && length >= PART) {
            flush();
        }
    }

    private void room(int count) throws IOException {
        if (over) {
            throw new IOException("the call has been answered");
        }
        if (count > bytes.length - length) {
            long wanted = Math.max((long) length + count, Math.min(2L * bytes.length, ARRAY_MAX));
            if (wanted > ARRAY_MAX) {
                throw new IOException("the result is too long");
            }
            bytes = Arrays.copyOf(bytes, Math.max((int) wanted, 512));
        }
    }

    /** The handler is done. */
    void finish() throws IOException {
        byte[] result;
        synchronized (this) {
            if (begun) {
                flush();
            }
            over = true;
            result = bytes;
            bytes = Channel.NOTHING;
        }
        if (begun) {
            exchange.end();
        } else {
            exchange.succeed(result, length);
        }
    }

    /** The handler failed. */
    void fail(Throwable error) throws IOException {
        synchronized (this) {
            over = true;
            bytes = Channel.NOTHING;
        }
        exchange.fail(error);
    }
}
