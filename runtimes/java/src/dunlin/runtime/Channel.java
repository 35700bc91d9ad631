package dunlin.runtime;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;

/**
 * The frames on descriptor 3.
 *
 * <p>Nobody owns the reading side: a thread that waits for something to arrive reads frames itself when no other thread
 * does, hands out what is not its own, and passes the reading on when it has what it wanted. With one call at a time
 * that makes no second thread and no hand-over; with several, one of the waiting threads reads for all.
 */
final class Channel {
    static final int LOAD = 2;
    static final int INIT = 3;
    static final int INVOKE = 4;
    static final int CHUNK = 5;
    static final int CANCEL = 6;
    static final int PRE_STOP = 7;
    static final int CREDIT = 8;
    static final int READY = 16;
    static final int HEAD = 17;
    static final int END = 18;
    static final int ERROR = 19;
    static final int GRANT = 20;

    /** A frame's flag: chunks follow. */
    static final int MORE = 1;

    /** Bytes of Chunk frames, headers included, that either side may send before the other grants more. */
    static final int WINDOW = 256 << 10;
    static final int HEADER_BYTES = 32;

    static final byte[] NO_TOKEN = new byte[16];
    static final byte[] NOTHING = new byte[0];

    /** The JDK copies what it reads and writes into memory of its own, as much as is asked for at once. */
    private static final int SLICE = 64 << 10;
    /** Frames up to this size are copied together and written at once. */
    private static final int SMALL = 16 << 10;

    private final InputStream in;
    private final OutputStream out;
    private final Object writing = new Object();

    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private boolean reading;
    private boolean closed;
    private final ArrayDeque<Exchange> arrived = new ArrayDeque<>();
    /** What is not answered yet, by stream. */
    private final HashMap<Integer, Exchange> inFlight = new HashMap<>();

    private final byte[] buffer = new byte[8 << 10];
    private int position;
    private int limit;

    Channel(InputStream in, OutputStream out) {
        this.in = in;
        this.out = out;
    }

    /** Writes one frame. */
    void send(int kind, int flags, int stream, byte[] token, byte[] head, byte[] body) throws IOException {
        send(kind, flags, stream, token, head, body, body.length);
    }

    /** Writes one frame with the first {@code length} bytes of {@code body}. */
    void send(int kind, int flags, int stream, byte[] token, byte[] head, byte[] body, int length) throws IOException {
        boolean small = length <= SMALL;
        byte[] first = new byte[HEADER_BYTES + head.length + (small ? length : 0)];
        first[0] = (byte) kind;
        first[1] = (byte) flags;
        putInt(first, 4, stream);
        putInt(first, 8, head.length);
        putInt(first, 12, length);
        System.arraycopy(token, 0, first, 16, token.length);
        System.arraycopy(head, 0, first, HEADER_BYTES, head.length);
        if (small) {
            System.arraycopy(body, 0, first, HEADER_BYTES + head.length, length);
        }
        synchronized (writing) {
            out.write(first);
            for (int at = small ? length : 0; at < length; at += SLICE) {
                out.write(body, at, Math.min(SLICE, length - at));
            }
        }
    }

    /** Writes a frame without a head, unless the request it belongs to has been answered: the host knows no such stream then. */
    void sendUnlessOver(Exchange exchange, int kind, byte[] token, byte[] body) throws IOException {
        synchronized (writing) {
            lock.lock();
            try {
                if (exchange.over) {
                    return;
                }
            } finally {
                lock.unlock();
            }
            send(kind, 0, exchange.stream, token, NOTHING, body);
        }
    }

    /** The next request, or null when the host has closed the channel. */
    Exchange next() throws IOException {
        await(() -> !arrived.isEmpty());
        lock.lock();
        try {
            return arrived.poll();
        } finally {
            lock.unlock();
        }
    }

    /** Waits until the host takes {@code cost} bytes more of an answer. False when it wants none of it any more. */
    boolean spend(Exchange exchange, int cost) throws IOException {
        await(() -> exchange.cancelled || exchange.credit >= cost);
        lock.lock();
        try {
            exchange.credit -= cost;
            return !exchange.cancelled && !closed;
        } finally {
            lock.unlock();
        }
    }

    /** The next part of the request's body; null at its end. */
    byte[] nextPart(Exchange exchange) throws IOException {
        await(() -> exchange.cancelled || exchange.over || exchange.bodyEnded || !exchange.parts.isEmpty());
        int taken = 0;
        byte[] part;
        lock.lock();
        try {
            if (exchange.cancelled || exchange.over || closed) {
                throw new IOException(exchange.over ? "the call has been answered" : "the caller went away");
            }
            part = exchange.parts.poll();
            if (part == null) {
                return null;
            }
            exchange.taken += HEADER_BYTES + part.length;
            if (exchange.taken >= WINDOW / 4 && !exchange.bodyEnded) {
                taken = exchange.taken;
                exchange.taken = 0;
            }
        } finally {
            lock.unlock();
        }
        if (taken > 0) {
            exchange.grant(taken);
        }
        return part;
    }

    /** A request is answered: what still comes for it is of no interest. */
    void over(Exchange exchange) {
        lock.lock();
        try {
            inFlight.remove(exchange.stream);
            exchange.over = true;
            exchange.parts.clear();
            changed.signalAll();
        } finally {
            lock.unlock();
        }
    }

    /** Waits until {@code done}, which is asked under the lock, or until the channel is closed. */
    private void await(BooleanSupplier done) throws IOException {
        lock.lock();
        try {
            while (!done.getAsBoolean() && !closed) {
                if (reading) {
                    changed.awaitUninterruptibly();
                    continue;
                }
                reading = true;
                lock.unlock();
                Exchange request = null;
                try {
                    request = read();
                } finally {
                    lock.lock();
                    reading = false;
                    closed |= request == null;
                    if (request != null) {
                        take(request);
                    }
                    changed.signalAll();
                }
            }
        } finally {
            lock.unlock();
        }
    }

    /** Takes a frame in, under the lock: a request, or news of one in flight. */
    private void take(Exchange frame) {
        Exchange request = inFlight.get(frame.stream);
        if (frame.kind != CANCEL && frame.kind != CREDIT && frame.kind != CHUNK) {
            inFlight.put(frame.stream, frame);
            arrived.add(frame);
        } else if (request == null) {
            // It has been answered meanwhile.
            return;
        } else if (frame.kind == CANCEL) {
            request.cancelled = true;
        } else if (frame.kind == CREDIT) {
            request.credit += getInt(frame.body(), 0);
        } else {
            request.bodyEnded = frame.bodyEnded;
            if (frame.body().length > 0) {
                request.parts.add(frame.body());
            }
        }
    }

    /** Reads one frame; null at the end of the stream. Called by one thread at a time. */
    private Exchange read() throws IOException {
        byte[] header = new byte[HEADER_BYTES];
        if (!fill(header, true)) {
            return null;
        }
        int kind = header[0];
        byte[] head = new byte[getInt(header, 8)];
        byte[] body = getInt(header, 12) == 0 ? NOTHING : new byte[getInt(header, 12)];
        fill(head, false);
        fill(body, false);
        if (kind != LOAD && kind != INIT && kind != INVOKE && kind != CHUNK && kind != CANCEL
                && kind != PRE_STOP && kind != CREDIT) {
            throw new IOException("a frame of the unknown kind " + kind);
        }
        byte[] token = new byte[16];
        System.arraycopy(header, 16, token, 0, token.length);
        return new Exchange(this, kind, (header[1] & MORE) != 0, getInt(header, 4), token, head, body);
    }

    /** Fills {@code target}. False when the stream ended before its first byte and that may be. */
    private boolean fill(byte[] target, boolean mayEnd) throws IOException {
        int at = 0;
        while (at < target.length) {
            int wanted = target.length - at;
            if (position < limit) {
                int taken = Math.min(wanted, limit - position);
                System.arraycopy(buffer, position, target, at, taken);
                position += taken;
                at += taken;
                continue;
            }
            int got;
            if (wanted >= buffer.length) {
                got = in.read(target, at, Math.min(wanted, SLICE));
                at += Math.max(got, 0);
            } else {
                got = in.read(buffer, 0, buffer.length);
                position = 0;
                limit = Math.max(got, 0);
            }
            if (got < 0) {
                if (mayEnd && at == 0) {
                    return false;
                }
                throw new EOFException("the channel ended within a frame");
            }
        }
        return true;
    }

    static void putInt(byte[] bytes, int at, int value) {
        bytes[at] = (byte) value;
        bytes[at + 1] = (byte) (value >> 8);
        bytes[at + 2] = (byte) (value >> 16);
        bytes[at + 3] = (byte) (value >> 24);
    }

    private static int getInt(byte[] bytes, int at) {
        return (bytes[at] & 0xff) | (bytes[at + 1] & 0xff) << 8 | (bytes[at + 2] & 0xff) << 16 | (bytes[at + 3] & 0xff) << 24;
    }
}
