package dunlin.runtime;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The JSON of the wire's heads, which the host writes, and of error bodies. Users' objects go through {@link Beans}: a
 * library of that size is not loaded for two small objects whose form is known.
 */
final class WireJson {
    private final String text;
    private int at;

    private WireJson(String text) {
        this.text = text;
    }

    /** Reads an object. Numbers become longs. */
    @SuppressWarnings("unchecked")
    static Map<String, Object> object(byte[] json) {
        return (Map<String, Object>) new WireJson(new String(json, StandardCharsets.UTF_8)).value();
    }

    /** A member that is text; empty when it is not there. */
    static String text(Map<String, Object> object, String name) {
        Object value = object.get(name);
        return value == null ? "" : (String) value;
    }

    /** A member that is a number; 0 when it is not there. */
    static int number(Map<String, Object> object, String name) {
        Object value = object.get(name);
        return value == null ? 0 : (int) Math.min((long) (Long) value, Integer.MAX_VALUE);
    }

    /** A member that is an object; empty when it is not there. */
    @SuppressWarnings("unchecked")
    static Map<String, Object> member(Map<String, Object> object, String name) {
        Object value = object.get(name);
        return value == null ? new LinkedHashMap<>() : (Map<String, Object>) value;
    }

    /** A text with its quotes, or {@code null}. */
    static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder quoted = new StringBuilder(text.length() + 2).append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            boolean lone = Character.isSurrogate(c)
                    && !(Character.isHighSurrogate(c) ? i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))
                            : i > 0 && Character.isHighSurrogate(text.charAt(i - 1)));
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ' || lone) {
                quoted.append("\\u");
                for (int shift = 12; shift >= 0; shift -= 4) {
                    quoted.append(Character.forDigit(c >> shift & 15, 16));
                }
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }

    private Object value() {
        switch (peek()) {
            case '{': {
                Map<String, Object> object = new LinkedHashMap<>();
                at++;
                while (peek() != '}') {
                    String name = string();
                    expect(':');
                    object.put(name, value());
                    if (peek() == ',') {
                        at++;
                    }
                }
                at++;
                return object;
            }
            case '[': {
                List<Object> list = new ArrayList<>();
                at++;
                while (peek() != ']') {
                    list.add(value());
                    if (peek() == ',') {
                        at++;
                    }
                }
                at++;
                return list;
            }
            case '"':
                return string();
            default:
                return word();
        }
    }

    private Object word() {
        int start = at;
        while (at < text.length() && ",]} \n\r\t".indexOf(text.charAt(at)) < 0) {
            at++;
        }
        String word = text.substring(start, at);
        switch (word) {
            case "null":
                return null;
            case "true":
                return true;
            case "false":
                return false;
            default:
                return Long.parseLong(word);
        }
    }

    private String string() {
        expect('"');
        int start = at;
        int end = text.indexOf('"', start);
        if (text.substring(start, end).indexOf('\\') < 0) {
            at = end + 1;
            return text.substring(start, end);
        }
        StringBuilder string = new StringBuilder();
        for (char c = text.charAt(at++); c != '"'; c = text.charAt(at++)) {
            string.append(c == '\\' ? escaped(text.charAt(at++)) : c);
        }
        return string.toString();
    }

    private char escaped(char c) {
        switch (c) {
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                at += 4;
                return (char) Integer.parseInt(text.substring(at - 4, at), 16);
            default:
                return c;
        }
    }

    private char peek() {
        while (Character.isWhitespace(text.charAt(at))) {
            at++;
        }
        return text.charAt(at);
    }

    private void expect(char wanted) {
        if (peek() != wanted) {
            throw new IllegalArgumentException("not the JSON of a head: '" + wanted + "' expected at " + at);
        }
        at++;
    }
}
