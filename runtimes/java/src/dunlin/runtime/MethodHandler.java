package dunlin.runtime;

import com.aliyun.fc.runtime.Context;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Type;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;

/**
 * A method that implements no interface. It takes the event (as bytes, text, stream or an object made of its JSON), the
 * context, an output stream, or fewer of these; what it returns is the answer: bytes and text as they are, streams in
 * parts, else JSON. Where it takes a stream beside an event in another form, the stream is the request's body.
 */
final class MethodHandler implements Handler {
    private final Object target;
    private final Method method;
    private final Type[] takes;
    private final boolean writes;
    private final boolean takesEvent;

    MethodHandler(Object target, Method method) throws Failure {
        this.target = target;
        this.method = method;
        this.takes = method.getGenericParameterTypes();
        int events = 0;
        int inputs = 0;
        boolean stream = false;
        for (Type type : takes) {
            stream |= type == OutputStream.class;
            inputs += type == InputStream.class ? 1 : 0;
            events += type == OutputStream.class || type == InputStream.class || type == Context.class ? 0 : 1;
        }
        if (events > 1 || inputs > 1) {
            throw new Failure("HandlerNotFound", "Handler '" + method.getName() + "' on class '" + method.getDeclaringClass().getName()
                    + "' may take an event, an InputStream, a Context and an OutputStream, each at most once");
        }
        this.writes = stream && method.getReturnType() == void.class;
        this.takesEvent = events == 1;
    }

    @Override
    public void handle(Exchange call, Answer answer, Context context) throws Throwable {
        Object[] arguments = new Object[takes.length];
        for (int i = 0; i < takes.length; i++) {
            Type type = takes[i];
            if (type == Context.class) {
                arguments[i] = context;
            } else if (type == OutputStream.class) {
                arguments[i] = answer;
            } else if (type == InputStream.class) {
                arguments[i] = takesEvent ? new RequestBody(call) : call.input();
            } else if (type == byte[].class) {
                arguments[i] = Beans.bytes(call.event());
            } else if (type == String.class) {
                arguments[i] = new String(Beans.bytes(call.event()), StandardCharsets.UTF_8);
            } else {
                arguments[i] = Beans.read(Beans.bytes(call.event()), type);
            }
        }
        Object result = call(method, target, arguments);
        if (result instanceof CompletionStage) {
            try {
                result = ((CompletionStage<?>) result).toCompletableFuture().get();
            } catch (ExecutionException failed) {
                throw failed.getCause();
            }
        }
        if (writes || Parts.answer(result, answer)) {
            return;
        }
        if (result instanceof String) {
            answer.write(((String) result).getBytes(StandardCharsets.UTF_8));
        } else if (result instanceof byte[]) {
            answer.write((byte[]) result);
        } else {
            Beans.write(result, answer);
        }
    }

    /** Calls it, and throws what it throws. */
    static Object call(Method method, Object target, Object... arguments) throws Throwable {
        try {
            return method.invoke(target, arguments);
        } catch (InvocationTargetException thrown) {
            throw thrown.getCause();
        }
    }
}
