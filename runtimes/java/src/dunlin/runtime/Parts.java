package dunlin.runtime;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.BaseStream;

/**
 * Answers that are streams: a returned {@link InputStream}, or an iterator or stream of texts and bytes, or a response
 * object with one of these as its body. Each part goes out as soon as it is there.
 */
final class Parts {
    private static final int PART = Channel.WINDOW / 4;

    private Parts() {}

    /** Answers with {@code result} if it is such an answer, and closes what was read. */
    static boolean answer(Object result, Answer answer) throws Exception {
        Object stream = result;
        if (result instanceof Map && ((Map<?, ?>) result).containsKey("statusCode")) {
            stream = ((Map<?, ?>) result).get("body");
        }
        if (!isStream(stream)) {
            return false;
        }
        try {
            if (stream != result) {
                Map<Object, Object> head = new LinkedHashMap<>((Map<?, ?>) result);
                head.remove("body");
                head.remove("isBase64Encoded");
                answer.begin(Beans.json(head));
            }
            send(stream, answer);
        } finally {
            if (stream instanceof AutoCloseable) {
                ((AutoCloseable) stream).close();
            }
        }
        return true;
    }

    private static boolean isStream(Object value) {
        return value instanceof InputStream || value instanceof Iterator || value instanceof BaseStream;
    }

    private static void send(Object stream, Answer answer) throws IOException {
        if (stream instanceof InputStream) {
            byte[] part = new byte[PART];
            for (int got = ((InputStream) stream).read(part); got >= 0; got = ((InputStream) stream).read(part)) {
                answer.write(part, 0, got);
                answer.flush();
            }
            return;
        }
        Iterator<?> parts = stream instanceof Iterator ? (Iterator<?>) stream : ((BaseStream<?, ?>) stream).iterator();
        while (parts.hasNext()) {
            answer.write(bytes(parts.next()));
            answer.flush();
        }
    }

    private static byte[] bytes(Object part) {
        if (part instanceof byte[]) {
            return (byte[]) part;
        }
        if (part instanceof CharSequence) {
            return part.toString().getBytes(StandardCharsets.UTF_8);
        }
        throw new IllegalArgumentException("a part of an answer must be text or bytes, not "
                + (part == null ? "null" : part.getClass().getName()));
    }
}
