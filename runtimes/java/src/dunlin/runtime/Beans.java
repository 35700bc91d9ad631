package dunlin.runtime;

import com.fasterxml.jackson.jr.ob.JSON;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.Array;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Users' objects and their JSON, by bean properties. The library has no notion of a generic type at the root, so lists
 * and maps of something are taken apart here and their elements left to it.
 */
final class Beans {
    private static final JSON JACKSON = JSON.builder().enable(JSON.Feature.WRITE_NULL_PROPERTIES).build();

    private Beans() {}

    /** Everything the stream still has. */
    static byte[] bytes(InputStream stream) throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream(Math.max(stream.available(), 32));
        byte[] part = new byte[Math.max(Math.min(stream.available(), 64 << 10), 1024)];
        for (int got = stream.read(part); got >= 0; got = stream.read(part)) {
            all.write(part, 0, got);
        }
        return all.toByteArray();
    }

    /** Makes a {@code type} of the JSON. No JSON at all makes null. */
    static Object read(byte[] json, Type type) throws IOException {
        if (isBlank(json)) {
            return null;
        }
        if (type instanceof Class) {
            return read(json, (Class<?>) type);
        }
        return convert(JACKSON.anyFrom(json), type);
    }

    static byte[] json(Object value) throws IOException {
        return JACKSON.asBytes(value);
    }

    static void write(Object value, Answer answer) throws IOException {
        if (value == null) {
            answer.write('n');
            answer.write('u');
            answer.write('l');
            answer.write('l');
        } else {
            answer.write(json(value));
        }
    }

    private static Object read(byte[] json, Class<?> type) throws IOException {
        if (type == Object.class) {
            return JACKSON.anyFrom(json);
        }
        if (type == String.class && firstOf(json) != '"') {
            // A text that was sent as it is, without the quotes that would make it JSON.
            return new String(json, java.nio.charset.StandardCharsets.UTF_8);
        }
        return JACKSON.beanFrom(type, json);
    }

    /** Makes a {@code type} of what the library made without knowing it. */
    private static Object convert(Object value, Type type) throws IOException {
        if (value == null || type == Object.class) {
            return value;
        }
        if (type instanceof Class) {
            return ((Class<?>) type).isInstance(value) ? value : JACKSON.beanFrom((Class<?>) type, JACKSON.asBytes(value));
        }
        if (type instanceof WildcardType) {
            return convert(value, ((WildcardType) type).getUpperBounds()[0]);
        }
        if (type instanceof TypeVariable) {
            return convert(value, ((TypeVariable<?>) type).getBounds()[0]);
        }
        if (type instanceof GenericArrayType && value instanceof List) {
            Type element = ((GenericArrayType) type).getGenericComponentType();
            List<?> values = (List<?>) value;
            Object array = Array.newInstance(rawOf(element), values.size());
            for (int i = 0; i < values.size(); i++) {
                Array.set(array, i, convert(values.get(i), element));
            }
            return array;
        }
        if (type instanceof ParameterizedType) {
            Class<?> raw = rawOf(type);
            Type[] arguments = ((ParameterizedType) type).getActualTypeArguments();
            if (value instanceof Map && raw.isAssignableFrom(LinkedHashMap.class) && arguments.length == 2) {
                Map<Object, Object> converted = new LinkedHashMap<>();
                for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                    converted.put(convert(entry.getKey(), arguments[0]), convert(entry.getValue(), arguments[1]));
                }
                return converted;
            }
            if (value instanceof List && Iterable.class.isAssignableFrom(raw) && arguments.length == 1) {
                Collection<Object> converted = Set.class.isAssignableFrom(raw) ? new LinkedHashSet<>() : new ArrayList<>();
                for (Object element : (List<?>) value) {
                    converted.add(convert(element, arguments[0]));
                }
                return converted;
            }
            return convert(value, raw);
        }
        return value;
    }

    private static Class<?> rawOf(Type type) {
        if (type instanceof Class) {
            return (Class<?>) type;
        }
        return type instanceof ParameterizedType ? (Class<?>) ((ParameterizedType) type).getRawType() : Object.class;
    }

    private static boolean isBlank(byte[] json) {
        return firstOf(json) == 0;
    }

    /** The first byte that is not white space; 0 when there is none. */
    private static byte firstOf(byte[] json) {
        for (byte b : json) {
            if (b > ' ' || b < 0) {
                return b;
            }
        }
        return 0;
    }
}
