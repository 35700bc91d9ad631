package dunlin.rehearsal;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.StreamRequestHandler;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/** A stream handler that nobody sees. */
public class Stream implements StreamRequestHandler {
    @Override
    public void handleRequest(InputStream input, OutputStream output, Context context) throws IOException {
        byte[] part = new byte[64];
        int got = input.read(part);
        context.getLogger().info("rehearsed " + context.getRequestId());
        output.write(("hello " + new String(part, 0, Math.max(got, 0))).getBytes());
    }
}
