package dunlin.runtime;

import java.io.IOException;
import java.io.OutputStream;
import java.util.Arrays;

/** Where a handler writes its answer. Nothing written after the end reaches anybody. */
final class Answer extends OutputStream {
    private static final int ARRAY_MAX = Integer.MAX_VALUE - 8;

    private final Exchange exchange;
    private byte[] bytes = Channel.NOTHING;
    private int length;
    private boolean over;

    Answer(Exchange exchange) {
        this.exchange = exchange;
    }

    @Override
    public synchronized void write(int value) throws IOException {
        room(1);
        bytes[length++] = (byte) value;
    }

    @Override
    public synchronized void write(byte[] source, int from, int count) throws IOException {
        if (from < 0 || count < 0 || count > source.length - from) {
            throw new IndexOutOfBoundsException();
        }
        room(count);
        System.arraycopy(source, from, bytes, length, count);
        length += count;
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
            over = true;
            result = bytes;
            bytes = Channel.NOTHING;
        }
        exchange.succeed(result, length);
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
