package dunlin.runtime;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.FunctionInitializer;
import com.aliyun.fc.runtime.PojoRequestHandler;
import com.aliyun.fc.runtime.PreStopHandler;
import com.aliyun.fc.runtime.StreamRequestHandler;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Finds what {@code package.Class::method} names. A class has one object, which its handler and its hooks share. */
final class Functions {
    private static final String HTTP_HANDLER = "com.aliyun.fc.runtime.HttpRequestHandler";

    private final ClassLoader code;
    private final String codePath;
    private final Map<Class<?>, Object> objects = new HashMap<>();

    Functions(ClassLoader code, String codePath) {
        this.code = code;
        this.codePath = codePath;
    }

    /** What serves calls. */
    Handler handler(String name) throws Throwable {
        Class<?> type = type(name);
        String method = method(name);
        if (method.equals("handleRequest")) {
            if (StreamRequestHandler.class.isAssignableFrom(type)) {
                StreamRequestHandler stream = (StreamRequestHandler) object(type);
                return (call, answer, context) -> stream.handleRequest(call.input(), answer, context);
            }
            if (PojoRequestHandler.class.isAssignableFrom(type)) {
                return BeanHandler.of((PojoRequestHandler<?, ?>) object(type));
            }
            if (implementsHttp(type)) {
                String message = "Class '" + type.getName() + "' is an HttpRequestHandler of Function Compute 2.0; "
                        + "implement StreamRequestHandler or PojoRequestHandler and read the request from the event";
                throw new Failure("HandlerNotFound", message);
            }
        }
        Method found = find(type, method);
        return new MethodHandler(Modifier.isStatic(found.getModifiers()) ? null : object(type), found);
    }

    /** An initializer or a pre-stop hook. */
    Handler.Hook hook(String name) throws Throwable {
        Class<?> type = type(name);
        String method = method(name);
        if (method.equals("initialize") && FunctionInitializer.class.isAssignableFrom(type)) {
            return ((FunctionInitializer) object(type))::initialize;
        }
        if (method.equals("preStop") && PreStopHandler.class.isAssignableFrom(type)) {
            return ((PreStopHandler) object(type))::preStop;
        }
        Method found = find(type, method);
        Object target = Modifier.isStatic(found.getModifiers()) ? null : object(type);
        Class<?>[] takes = found.getParameterTypes();
        if (takes.length == 0) {
            return context -> MethodHandler.call(found, target);
        }
        if (takes.length == 1 && takes[0].isAssignableFrom(Context.class)) {
            return context -> MethodHandler.call(found, target, context);
        }
        throw new Failure("HandlerNotFound", "The hook '" + name + "' may take a Context and nothing else");
    }

    private static String method(String name) {
        return name.substring(name.indexOf("::") + 2);
    }

    private Class<?> type(String name) throws Throwable {
        int colons = name.indexOf("::");
        if (colons <= 0 || colons == name.length() - 2) {
            throw new Failure("HandlerNotFound", "Handler '" + name + "' is not of the form 'package.Class::method'");
        }
        String type = name.substring(0, colons);
        try {
            return Class.forName(type, true, code);
        } catch (ClassNotFoundException missing) {
            // Only when the handler's own class is what is missing; one that it needs is the user's error.
            if (!type.equals(missing.getMessage())) {
                throw missing;
            }
            throw new Failure(ClassNotFoundException.class.getName(),
                    "Cannot find class '" + type + "' in " + codePath + " and the jars in it and in its lib");
        } catch (ExceptionInInitializerError failed) {
            throw failed.getCause() == null ? failed : failed.getCause();
        }
    }

    private Object object(Class<?> type) throws Throwable {
        Object known = objects.get(type);
        if (known != null) {
            return known;
        }
        if (Modifier.isAbstract(type.getModifiers())) {
            throw new Failure("HandlerNotFound", "Class '" + type.getName() + "' is abstract: no object of it can be made");
        }
        Constructor<?> constructor;
        try {
            constructor = type.getDeclaredConstructor();
        } catch (NoSuchMethodException missing) {
            throw new Failure(NoSuchMethodException.class.getName(),
                    "Class '" + type.getName() + "' has no constructor without parameters");
        }
        try {
            constructor.setAccessible(true);
            Object made = constructor.newInstance();
            objects.put(type, made);
            return made;
        } catch (InvocationTargetException thrown) {
            throw thrown.getCause();
        } catch (ExceptionInInitializerError failed) {
            throw failed.getCause() == null ? failed : failed.getCause();
        }
    }

    /** The method of that name; of several, the one that takes a context, then the one that takes most. */
    private static Method find(Class<?> type, String name) throws Failure {
        List<Method> found = new ArrayList<>();
        for (Method method : type.getMethods()) {
            collect(found, method, name);
        }
        for (Class<?> above = type; found.isEmpty() && above != null; above = above.getSuperclass()) {
            for (Method method : above.getDeclaredMethods()) {
                collect(found, method, name);
            }
        }
        Method best = null;
        for (Method method : found) {
            if (best == null || rank(method) > rank(best)
                    || rank(method) == rank(best) && best.getDeclaringClass().isAssignableFrom(method.getDeclaringClass())) {
                best = method;
            }
        }
        if (best == null) {
            throw new Failure(NoSuchMethodException.class.getName(), "Handler '" + name + "' missing on class '" + type.getName() + "'");
        }
        best.setAccessible(true);
        return best;
    }

    private static void collect(List<Method> found, Method method, String name) {
        if (method.getName().equals(name) && !method.isBridge() && !method.isSynthetic() && !Modifier.isAbstract(method.getModifiers())) {
            found.add(method);
        }
    }

    private static int rank(Method method) {
        int rank = method.getParameterCount();
        for (Class<?> type : method.getParameterTypes()) {
            rank += type == Context.class ? 100 : 0;
        }
        return rank;
    }

    private static boolean implementsHttp(Class<?> type) {
        for (Class<?> above = type; above != null; above = above.getSuperclass()) {
            for (Class<?> implemented : above.getInterfaces()) {
                if (implemented.getName().equals(HTTP_HANDLER)) {
                    return true;
                }
            }
        }
        return false;
    }
}
