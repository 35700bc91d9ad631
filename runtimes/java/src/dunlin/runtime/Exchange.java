package dunlin.runtime;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Arrays;

/** One request of the host, and its answer. */
final class Exchange {
    private static final int RESULT_MAX = 32 << 20;
    private static final String UNHANDLED = "UnhandledInvocationError";
    private static final String INITIALIZATION = "InitializationError";

    final int kind;
    final byte[] head;
    final int stream;
    /** Whether a body follows the event. */
    final boolean hasBody;

    // From here on the channel's, under its lock.
    /** How much of an answer in parts the host takes now, and whether it wants any. */
    int credit = Channel.WINDOW;
    boolean cancelled;
    /** The request's body: what of it waits to be read, what was read since the host was last told, and its end. */
    final ArrayDeque<byte[]> parts = new ArrayDeque<>(0);
    int taken;
    boolean bodyEnded;
    /** The answer is out. */
    boolean over;

    private final Channel channel;
    private final byte[] token;
    private byte[] body;

    Exchange(Channel channel, int kind, boolean more, int stream, byte[] token, byte[] head, byte[] body) {
        this.channel = channel;
        this.kind = kind;
        this.hasBody = more;
        this.bodyEnded = !more;
        this.stream = stream;
        this.token = token;
        this.head = head;
        this.body = body;
    }

    byte[] body() {
        return body;
    }

    /** The next part of the request's body; null at its end. */
    byte[] nextPart() throws IOException {
        if (!hasBody) {
            throw new IOException("this call has no body beside its event: requests to a function's URL have one "
                    + "where DUNLIN_STREAM_REQUESTS is true");
        }
        return channel.nextPart(this);
    }

    /** Tells the host that it may send so much more of the request's body. */
    void grant(int bytes) throws IOException {
        byte[] credit = new byte[4];
        Channel.putInt(credit, 0, bytes);
        channel.sendUnlessOver(this, Channel.GRANT, token, credit);
    }

    /** Begins an answer in parts: {@code head} is the response object without its body, or an empty one. */
    void begin(byte[] head) throws IOException {
        channel.send(Channel.HEAD, 0, stream, token, head, Channel.NOTHING);
    }

    /** Sends the next part, at most a quarter of the window, as soon as the host takes it. */
    void part(byte[] bytes, int from, int count) throws IOException {
        if (!channel.spend(this, Channel.HEADER_BYTES + count)) {
            throw new IOException("the caller went away");
        }
        channel.send(Channel.CHUNK, 0, stream, token, Channel.NOTHING, Arrays.copyOfRange(bytes, from, from + count));
    }

    /** Ends an answer in parts. */
    void end() throws IOException {
        Surroundings.flush();
        channel.over(this);
        channel.send(Channel.END, 0, stream, token, Channel.NOTHING, Channel.NOTHING);
    }

    /** The event, to be read once. */
    InputStream event() {
        InputStream event = new ByteArrayInputStream(body);
        body = Channel.NOTHING;
        return event;
    }

    /** What a handler reads that takes a stream: the request's body where one follows the event, else the event. */
    InputStream input() {
        return hasBody ? new RequestBody(this) : event();
    }

    /** Answers with the first {@code length} bytes of {@code result}, unless they are too many. */
    void succeed(byte[] result, int length) throws IOException {
        if (length > RESULT_MAX) {
            String message = "The result is " + length + " bytes, more than the limit of " + RESULT_MAX + " bytes";
            fail(new Failure("FunctionError", message));
            return;
        }
        Surroundings.flush();
        channel.over(this);
        channel.send(Channel.END, 0, stream, token, Channel.NOTHING, result, length);
    }

    /** Tells the caller about an error, and the log too. Initializers have an error type of their own. */
    void fail(Throwable error) throws IOException {
        // What is left of a heap that ran full is anybody's guess; the next call gets a new instance.
        boolean fatal = error instanceof OutOfMemoryError;
        Report report = new Report(error);
        report.print();
        Surroundings.flush();
        channel.over(this);
        String head = "{\"errorType\":\"" + (kind == Channel.INIT ? INITIALIZATION : UNHANDLED) + (fatal ? "\",\"fatal\":true}" : "\"}");
        channel.send(Channel.ERROR, 0, stream, token, head.getBytes(StandardCharsets.UTF_8), report.body());
        if (fatal) {
            Runtime.getRuntime().halt(1);
        }
    }
}
