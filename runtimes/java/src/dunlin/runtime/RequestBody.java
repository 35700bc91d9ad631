package dunlin.runtime;

import java.io.IOException;
import java.io.InputStream;

/** The body of the request that an event stands for, as it arrives. */
final class RequestBody extends InputStream {
    private final Exchange exchange;
    private byte[] part = Channel.NOTHING;
    private int position;
    private boolean ended;

    RequestBody(Exchange exchange) {
        this.exchange = exchange;
    }

    @Override
    public synchronized int read() throws IOException {
        return arrived() ? part[position++] & 0xff : -1;
    }

    @Override
    public synchronized int read(byte[] into, int from, int count) throws IOException {
        if (from < 0 || count < 0 || count > into.length - from) {
            throw new IndexOutOfBoundsException();
        }
        if (count == 0) {
            return 0;
        }
        if (!arrived()) {
            return -1;
        }
        int taken = Math.min(count, part.length - position);
        System.arraycopy(part, position, into, from, taken);
        position += taken;
        return taken;
    }

    @Override
    public synchronized int available() {
        return part.length - position;
    }

    /** Waits for bytes. False at the end. */
    private boolean arrived() throws IOException {
        while (!ended && position == part.length) {
            byte[] next = exchange.nextPart();
            ended = next == null;
            part = ended ? Channel.NOTHING : next;
            position = 0;
        }
        return !ended;
    }
}
