package dunlin.runtime;

import com.aliyun.fc.runtime.Context;
import java.io.File;
import java.io.IOException;
import java.util.Collections;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * One function's code and hooks.
 *
 * <p>With one call at a time, the thread that reads a request serves it. With more, each call has a thread of its own,
 * which is kept for the next; the host never sends more than were agreed on.
 */
final class Instance {
    private static final int IDLE_SECONDS = 60;

    private final Channel channel;
    private final CallLogger.Threshold threshold = new CallLogger.Threshold();
    private Map<String, Object> load = Collections.emptyMap();
    private Functions functions;
    private Handler handler;
    private ExecutorService callers;

    Instance(Channel channel) {
        this.channel = channel;
    }

    /** Serves requests until the host closes the channel. */
    void serve() throws IOException {
        for (Exchange exchange = channel.next(); exchange != null; exchange = channel.next()) {
            if (callers == null || exchange.kind != Channel.INVOKE) {
                request(exchange);
            } else {
                Exchange call = exchange;
                callers.execute(() -> onItsOwnThread(call));
            }
            // The event is the user's: nothing of ours keeps a large one alive until the next call.
            exchange = null;
        }
    }

    private void onItsOwnThread(Exchange exchange) {
        try {
            request(exchange);
        } catch (Throwable broken) {
            // No answer went out, so the host will wait for none: it sees the process end.
            broken.printStackTrace();
            Surroundings.flush();
            Runtime.getRuntime().halt(1);
        }
    }

    /** Serves one request. Whatever happens, an answer is written or the process ends. */
    private void request(Exchange exchange) throws IOException {
        Answer answer = new Answer(exchange);
        try {
            if (exchange.kind == Channel.LOAD) {
                begin(WireJson.object(exchange.head));
            } else {
                Map<String, Object> call = WireJson.object(exchange.head);
                Context context = new CallContext(load, call, threshold);
                if (Boolean.TRUE.equals(call.get("takesParts"))) {
                    answer.allowParts();
                }
                if (exchange.kind == Channel.INVOKE) {
                    handler.handle(exchange, answer, context);
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
        CommonThreads.use(code);
        functions = new Functions(code, codePath);
        handler = functions.handler(WireJson.text(load, "handler"));
        int concurrency = WireJson.number(load, "concurrency");
        if (concurrency > 1) {
            AtomicInteger number = new AtomicInteger();
            // Without a limit of its own: a call may arrive before the thread of the one just answered is free.
            callers = new ThreadPoolExecutor(0, Integer.MAX_VALUE, IDLE_SECONDS, TimeUnit.SECONDS, new SynchronousQueue<>(), task -> {
                Thread thread = new Thread(task, "call-" + number.incrementAndGet());
                thread.setDaemon(true);
                return thread;
            });
        }
    }
}
