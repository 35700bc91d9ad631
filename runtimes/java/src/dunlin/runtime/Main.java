package dunlin.runtime;

import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.Constructor;
import java.nio.charset.StandardCharsets;

/**
 * The Java bootstrap: loads the user's classes and answers calls on descriptor 3 (docs/design/wire.md).
 *
 * <p>Says {@code Ready} as soon as it could serve, then rehearses loading and calling for as long as nobody asks for
 * the real thing, and serves until the host closes the channel.
 *
 * <p>What always holds:
 * <ul>
 * <li>A call is answered once.
 * <li>stdout and stderr are flushed before an answer is written: the host has a call's output before its answer.
 * <li>User code sees the Java platform, {@code com.aliyun.fc.runtime} and its own classes; nothing of ours, and none of
 *     the libraries we use.
 * </ul>
 */
public final class Main {
    private static final int CHANNEL = 3;

    private Main() {}

    /** Never returns. */
    public static void main(String[] arguments) {
        int status = 1;
        try {
            FileDescriptor descriptor = descriptor(CHANNEL);
            InputStream in = new FileInputStream(descriptor);
            Channel channel = new Channel(in, new FileOutputStream(descriptor));
            Surroundings.prepareOutput();
            String version = System.getProperty("java.version");
            byte[] ready = ("{\"runtime\":" + WireJson.quoted("java " + version) + "}").getBytes(StandardCharsets.UTF_8);
            channel.send(Channel.READY, 0, 0, Channel.NO_TOKEN, ready, Channel.NOTHING);
            Rehearsal.run(in);
            new Instance(channel).serve();
            status = 0;
        } catch (Throwable broken) {
            // The channel is gone, and with it the only one we could tell; the log may still take it.
            broken.printStackTrace();
        }
        Surroundings.flush();
        // Whatever threads and shutdown hooks user code left behind: the host has let go of this process.
        Runtime.getRuntime().halt(status);
    }

    /** A descriptor this process was born with. The manifest opens java.io for it. */
    private static FileDescriptor descriptor(int number) throws IOException {
        try {
            Constructor<FileDescriptor> constructor = FileDescriptor.class.getDeclaredConstructor(int.class);
            constructor.setAccessible(true);
            return constructor.newInstance(number);
        } catch (ReflectiveOperationException missing) {
            throw new IOException("cannot take descriptor " + number, missing);
        }
    }
}
