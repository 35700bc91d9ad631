package dunlin.runtime;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.io.UnsupportedEncodingException;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TimeZone;

/** What user code finds around it: output, environment, working directory, time zone. */
final class Surroundings {
    private static PrintStream out;
    private static PrintStream err;

    private Surroundings() {}

    /** Puts UTF-8 streams in place that write every line at once, and see to it that an exit loses nothing. */
    static void prepareOutput() throws UnsupportedEncodingException {
        out = stream(FileDescriptor.out);
        err = stream(FileDescriptor.err);
        System.setOut(out);
        System.setErr(err);
        Runtime.getRuntime().addShutdownHook(new Thread(Surroundings::flush));
    }

    private static PrintStream stream(FileDescriptor descriptor) throws UnsupportedEncodingException {
        return new PrintStream(new java.io.BufferedOutputStream(new FileOutputStream(descriptor), 8 << 10), true, "UTF-8");
    }

    /** Puts everything printed so far into the pipe. */
    static void flush() {
        out.flush();
        err.flush();
        PrintStream[] current = {System.out, System.err};
        for (PrintStream stream : current) {
            if (stream != null && stream != out && stream != err) {
                try {
                    stream.flush();
                } catch (Throwable theirs) {
                    // The user's own stream: nothing of ours is lost.
                }
            }
        }
    }

    /** Makes the process look as the function's own. */
    static void become(Map<String, Object> environment, String codePath) throws IOException {
        setEnvironment(environment);
        Object zone = environment.get("TZ");
        // The zone may have been looked up before there was a function.
        String name = zone == null || zone.equals("") ? "UTC" : zone.toString();
        System.setProperty("user.timezone", name);
        TimeZone.setDefault(TimeZone.getTimeZone(name));
        enter(codePath);
    }

    /** Java has no call that changes the working directory, and code that opens {@code config.properties} needs one. */
    private static void enter(String codePath) throws IOException {
        // The process was started in a directory of this name, which is all that Java's own paths go by; what is mounted
        // there now is reached by entering it again.
        int errno = Native.chdir((codePath + "\0").getBytes(StandardCharsets.UTF_8));
        if (errno != 0) {
            throw new IOException("cannot enter " + codePath + ": errno " + errno);
        }
    }

    /** Replaces what {@code System.getenv} answers and child processes inherit, and the native environment with it. */
    @SuppressWarnings("unchecked")
    private static void setEnvironment(Map<String, Object> wanted) throws IOException {
        try {
            Field field = Class.forName("java.lang.ProcessEnvironment").getDeclaredField("theUnmodifiableEnvironment");
            field.setAccessible(true);
            Object unmodifiable = field.get(null);
            Field inner = unmodifiable.getClass().getDeclaredField("m");
            inner.setAccessible(true);
            Map<String, String> environment = (Map<String, String>) inner.get(unmodifiable);
            environment.clear();
            wanted.forEach((name, value) -> environment.put(name, (String) value));
        } catch (ReflectiveOperationException missing) {
            throw new IOException("cannot set the environment", missing);
        }
        StringBuilder block = new StringBuilder();
        wanted.forEach((name, value) -> block.append(name).append('=').append(value).append('\0'));
        Native.environment(block.toString().getBytes(StandardCharsets.UTF_8));
    }
}
