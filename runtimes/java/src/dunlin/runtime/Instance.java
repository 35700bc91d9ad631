package dunlin.runtime;

import com.aliyun.fc.runtime.Context;
import java.io.File;
import java.io.IOException;
import java.util.Collections;
import java.util.Map;

/** One function's code and hooks. */
final class Instance {
    private final Channel channel;
    private final CallLogger.Threshold threshold = new CallLogger.Threshold();
    private Map<String, Object> load = Collections.emptyMap();
    private Functions functions;
    private Handler handler;

    Instance(Channel channel) {
        this.channel = channel;
    }

    /** Serves requests until the host closes the channel. */
    void serve() throws IOException {
        for (Exchange exchange = channel.next(); exchange != null; exchange = channel.next()) {
            request(exchange);
            // The event is the user's: nothing of ours keeps a large one alive until the next call.
            exchange = null;
        }
    }

    /** Serves one request. Whatever happens, an answer is written or the process ends. */
    private void request(Exchange exchange) throws IOException {
        Answer answer = new Answer(exchange);
        try {
            if (exchange.kind == Channel.LOAD) {
                begin(WireJson.object(exchange.head));
            } else {
                Context context = new CallContext(load, WireJson.object(exchange.head), threshold);
                if (exchange.kind == Channel.INVOKE) {
                    handler.handle(exchange.event(), answer, context);
                } else {
                    String name = WireJson.text(load, exchange.kind == Channel.INIT ? "initializer" : "preStop");
                    functions.hook(name).run(context);
                }
            }
            // A call may not end with the mark of an interrupt that its own code left.
            Thread.interrupted();
            answer.finish();
        } catch (Throwable error) {
            Thread.interrupted();
            answer.fail(error);
        }
    }

    private void begin(Map<String, Object> given) throws Throwable {
        load = given;
        String codePath = load.containsKey("codePath") ? WireJson.text(load, "codePath") : "/code";
        Surroundings.become(WireJson.member(load, "env"), codePath);
        Code code = new Code(new File(codePath).getPath());
        Thread.currentThread().setContextClassLoader(code);
        functions = new Functions(code, codePath);
        handler = functions.handler(WireJson.text(load, "handler"));
    }
}
