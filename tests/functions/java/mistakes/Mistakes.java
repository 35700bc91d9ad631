package mistakes;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.StreamRequestHandler;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.ArrayList;
import java.util.List;

/** Does what the event says, none of it good. */
public class Mistakes implements StreamRequestHandler {
    @Override
    public void handleRequest(InputStream input, OutputStream output, Context context) throws IOException {
        byte[] event = new byte[64];
        String deed = new String(event, 0, Math.max(input.read(event), 0));
        switch (deed) {
            case "exit":
                System.exit(7);
                break;
            case "throw":
                throw new IOException("oops");
            case "keep":
                List<byte[]> kept = new ArrayList<>();
                for (;;) {
                    byte[] page = new byte[1 << 20];
                    page[page.length - 1] = 1;
                    kept.add(page);
                }
            case "litter":
                long sum = 0;
                for (int i = 0; i < 2000; i++) {
                    byte[] page = new byte[1 << 20];
                    page[i % page.length] = 1;
                    sum += page[i % page.length];
                }
                output.write(("littered " + sum).getBytes());
                break;
            default:
                output.write(("fine, " + Helper.help(deed)).getBytes());
        }
    }
}
