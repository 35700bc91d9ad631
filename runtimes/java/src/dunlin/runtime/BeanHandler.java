package dunlin.runtime;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.PojoRequestHandler;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.util.HashMap;
import java.util.Map;

/** A handler of objects: the event's JSON becomes one, and what it returns becomes JSON. */
final class BeanHandler implements Handler {
    private final PojoRequestHandler<Object, Object> handler;
    private final Type input;

    private BeanHandler(PojoRequestHandler<Object, Object> handler, Type input) {
        this.handler = handler;
        this.input = input;
    }

    @SuppressWarnings("unchecked")
    static BeanHandler of(PojoRequestHandler<?, ?> handler) {
        Type input = argument(handler.getClass(), new HashMap<>());
        return new BeanHandler((PojoRequestHandler<Object, Object>) handler, input == null ? Object.class : input);
    }

    @Override
    public void handle(Exchange call, Answer answer, Context context) throws Throwable {
        Object value = Beans.read(Beans.bytes(call.event()), input);
        Object result = handler.handleRequest(value, context);
        if (!Parts.answer(result, answer)) {
            Beans.write(result, answer);
        }
    }

    /** What the interface's first parameter is for {@code type}, through superclasses and interfaces in between. */
    private static Type argument(Type type, Map<TypeVariable<?>, Type> known) {
        Class<?> raw;
        if (type instanceof ParameterizedType) {
            raw = (Class<?>) ((ParameterizedType) type).getRawType();
            Type[] given = ((ParameterizedType) type).getActualTypeArguments();
            for (int i = 0; i < given.length; i++) {
                known.put(raw.getTypeParameters()[i], known.getOrDefault(given[i], given[i]));
            }
        } else if (type instanceof Class) {
            raw = (Class<?>) type;
        } else {
            return null;
        }
        if (raw == PojoRequestHandler.class) {
            return known.get(raw.getTypeParameters()[0]);
        }
        for (Type above : raw.getGenericInterfaces()) {
            Type found = argument(above, known);
            if (found != null) {
                return found;
            }
        }
        return raw.getGenericSuperclass() == null ? null : argument(raw.getGenericSuperclass(), known);
    }
}
