package dunlin.runtime;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** One request of the host, and its answer. */
final class Exchange {
    private static final int RESULT_MAX = 32 << 20;
    private static final String UNHANDLED = "UnhandledInvocationError";
    private static final String INITIALIZATION = "InitializationError";

    final int kind;
    final byte[] head;

    final int stream;
    /** How much of an answer in parts the host takes now, and whether it wants any. The channel's, under its lock. */
    int credit = Channel.WINDOW;
    boolean cancelled;

    private final Channel channel;
    private final byte[] token;
    private byte[] body;

    Exchange(Channel channel, int kind, int stream, byte[] token, byte[] head, byte[] body) {
        this.channel = channel;
        this.kind = kind;
        this.stream = stream;
        this.token = token;
        this.head = head;
        this.body = body;
    }

    byte[] body() {
        return body;
    }

    /** Begins an answer in parts. */
    void begin() throws IOException {
        channel.send(Channel.HEAD, 0, stream, token, new byte[] {'{', '}'}, Channel.NOTHING);
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
        channel.over(stream);
        channel.send(Channel.END, 0, stream, token, Channel.NOTHING, Channel.NOTHING);
    }

    /** The event, to be read once. */
    InputStream event() {
        InputStream event = new ByteArrayInputStream(body);
        body = Channel.NOTHING;
        return event;
    }

    /** Answers with the first {@code length} bytes of {@code result}, unless they are too many. */
    void succeed(byte[] result, int length) throws IOException {
        if (length > RESULT_MAX) {
            String message = "The result is " + length + " bytes, more than the limit of " + RESULT_MAX + " bytes";
            fail(new Failure("FunctionError", message));
            return;
        }
        Surroundings.flush();
        channel.over(stream);
        channel.send(Channel.END, 0, stream, token, Channel.NOTHING, result, length);
    }

    /** Tells the caller about an error, and the log too. Initializers have an error type of their own. */
    void fail(Throwable error) throws IOException {
        // What is left of a heap that ran full is anybody's guess; the next call gets a new instance.
        boolean fatal = error instanceof OutOfMemoryError;
        Report report = new Report(error);
        report.print();
        Surroundings.flush();
        channel.over(stream);
        String head = "{\"errorType\":\"" + (kind == Channel.INIT ? INITIALIZATION : UNHANDLED) + (fatal ? "\",\"fatal\":true}" : "\"}");
        channel.send(Channel.ERROR, 0, stream, token, head.getBytes(StandardCharsets.UTF_8), report.body());
        if (fatal) {
            Runtime.getRuntime().halt(1);
        }
    }
}
