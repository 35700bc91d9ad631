package dunlin.runtime;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** An error as callers and logs get it. Making one never fails, whatever the user threw. */
final class Report {
    private static final int MESSAGE_CHARS_MAX = 64 << 10;
    private static final int FRAMES_MAX = 100;
    private static final int CAUSES_MAX = 16;
    private static final String OURS = "dunlin.runtime.";

    private final String message;
    private final String type;
    private final String cause;
    private final List<String> stack;
    private final StringBuilder text = new StringBuilder();

    Report(Throwable error) {
        if (error instanceof Failure) {
            message = error.getMessage();
            type = ((Failure) error).type;
            cause = null;
            stack = Collections.emptyList();
            text.append(type).append(": ").append(message);
            return;
        }
        message = messageOf(error);
        type = error.getClass().getName();
        stack = usersFrames(error);
        Throwable root = error;
        describe(error, stack);
        for (int depth = 0; depth < CAUSES_MAX; depth++) {
            Throwable below = causeOf(root);
            if (below == null || below == root) {
                break;
            }
            root = below;
            text.append("\nCaused by: ");
            describe(root, usersFrames(root));
        }
        cause = root == error ? message : messageOf(root);
    }

    /** The body of contract section 5.1, as JSON. */
    byte[] body() {
        StringBuilder json = new StringBuilder("{\"errorMessage\":").append(WireJson.quoted(message));
        json.append(",\"errorType\":").append(WireJson.quoted(type));
        if (cause != null) {
            json.append(",\"errorCause\":").append(WireJson.quoted(cause));
        }
        json.append(",\"stackTrace\":[");
        for (int i = 0; i < stack.size(); i++) {
            json.append(i == 0 ? "" : ",").append(WireJson.quoted(stack.get(i)));
        }
        return json.append("]}").toString().getBytes(StandardCharsets.UTF_8);
    }

    /** Writes it into the log as Java itself would. */
    void print() {
        try {
            System.err.println(text);
        } catch (Throwable replaced) {
            // The user put something in the place of stderr; the caller is told all the same.
        }
    }

    private void describe(Throwable error, List<String> frames) {
        String message = messageOf(error);
        text.append(error.getClass().getName());
        if (message != null) {
            text.append(": ").append(message);
        }
        for (String frame : frames) {
            text.append("\n\tat ").append(frame);
        }
    }

    private static String messageOf(Throwable error) {
        String message;
        try {
            message = error.getMessage();
        } catch (Throwable broken) {
            return "(this exception has no text: its getMessage failed)";
        }
        if (message != null && message.length() > MESSAGE_CHARS_MAX) {
            return message.substring(0, MESSAGE_CHARS_MAX) + "…";
        }
        return message;
    }

    private static Throwable causeOf(Throwable error) {
        try {
            return error.getCause();
        } catch (Throwable broken) {
            return null;
        }
    }

    /** The frames above our own, without the reflection in between. */
    private static List<String> usersFrames(Throwable error) {
        List<String> frames = new ArrayList<>();
        try {
            StackTraceElement[] all = error.getStackTrace();
            int end = all.length;
            while (end > 0 && isBelow(all[end - 1].getClassName())) {
                end--;
            }
            for (int i = 0; i < end && frames.size() < FRAMES_MAX; i++) {
                // Our class loader may be in the middle.
                if (!all[i].getClassName().startsWith(OURS)) {
                    frames.add(all[i].toString());
                }
            }
        } catch (Throwable broken) {
            // A stack that cannot be had is an empty one.
        }
        return frames;
    }

    /** Whether a frame of that class at the bottom of a stack is how we came to call the user. */
    private static boolean isBelow(String name) {
        return name.startsWith(OURS) || name.startsWith("java.lang.reflect.") || name.startsWith("jdk.internal.reflect.")
                || name.startsWith("sun.reflect.") || name.startsWith("java.lang.invoke.") || name.startsWith("java.util.concurrent.")
                || name.equals("java.lang.ClassLoader") || name.equals("java.lang.Class") || name.equals("java.lang.Thread");
    }
}
