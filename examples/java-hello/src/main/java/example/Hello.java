package example;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.FunctionInitializer;
import com.aliyun.fc.runtime.StreamRequestHandler;
import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/** Greets whoever the event names. */
public class Hello implements StreamRequestHandler, FunctionInitializer {
    private Gson gson = new Gson();
    private String greeting = "hello";

    @Override
    public void initialize(Context context) {
        greeting = "hello, once initialized,";
    }

    @Override
    public void handleRequest(InputStream input, OutputStream output, Context context) throws IOException {
        ByteArrayOutputStream event = new ByteArrayOutputStream();
        byte[] part = new byte[4096];
        for (int got = input.read(part); got >= 0; got = input.read(part)) {
            event.write(part, 0, got);
        }
        context.getLogger().info("called with " + event.size() + " bytes");
        String text = new String(event.toByteArray(), StandardCharsets.UTF_8);
        String name = text.isEmpty() ? "world" : text;
        if (text.startsWith("{")) {
            JsonObject query = gson.fromJson(text, JsonObject.class).getAsJsonObject("queryParameters");
            name = query != null && query.has("name") ? query.get("name").getAsString() : "world";
        }
        JsonObject headers = new JsonObject();
        headers.addProperty("content-type", "text/plain");
        JsonObject response = new JsonObject();
        response.addProperty("statusCode", 200);
        response.add("headers", headers);
        response.addProperty("body", greeting + " " + name + " from Java\n");
        output.write(gson.toJson(response).getBytes(StandardCharsets.UTF_8));
    }
}
