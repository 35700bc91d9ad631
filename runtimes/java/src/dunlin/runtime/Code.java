package dunlin.runtime;

import java.io.File;
import java.io.IOException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Enumeration;
import java.util.List;

/**
 * The user's classes: {@code /code} itself, where an uploaded jar lies unpacked, the jars in it and in its {@code lib},
 * and the jars of layers.
 */
final class Code extends URLClassLoader {
    static {
        registerAsParallelCapable();
    }

    Code(String path) {
        super(urls(path), new Contract());
    }

    private static URL[] urls(String path) {
        List<URL> urls = new ArrayList<>();
        try {
            urls.add(new File(path + "/").toURI().toURL());
            addJars(urls, new File(path, "lib"));
            addJars(urls, new File(path));
            addJars(urls, new File("/opt/java/lib"));
            addJars(urls, new File("/opt/lib"));
        } catch (MalformedURLException impossible) {
            throw new IllegalStateException(impossible);
        }
        return urls.toArray(new URL[0]);
    }

    private static void addJars(List<URL> urls, File directory) throws MalformedURLException {
        String[] names = directory.list((where, name) -> name.endsWith(".jar"));
        if (names == null) {
            return;
        }
        Arrays.sort(names);
        for (String name : names) {
            urls.add(new File(directory, name).toURI().toURL());
        }
    }

    @Override
    protected Class<?> findClass(String name) throws ClassNotFoundException {
        try {
            return super.findClass(name);
        } catch (ClassNotFoundException missing) {
            // The library's old HTTP handlers mention these; a user who brings a newer one keeps it.
            if (name.startsWith("javax.servlet.")) {
                return Code.class.getClassLoader().loadClass(name);
            }
            throw missing;
        }
    }

    /** The Java platform and the vendor's interfaces, which have to be the same classes for us and for user code. */
    private static final class Contract extends ClassLoader {
        private static final String INTERFACES = "com.aliyun.fc.runtime.";

        static {
            registerAsParallelCapable();
        }

        Contract() {
            // The platform's loader; what we bring ourselves is in the one below it.
            super(Code.class.getClassLoader().getParent());
        }

        @Override
        protected Class<?> findClass(String name) throws ClassNotFoundException {
            if (name.startsWith(INTERFACES)) {
                return Code.class.getClassLoader().loadClass(name);
            }
            throw new ClassNotFoundException(name);
        }

        @Override
        public URL getResource(String name) {
            return getParent().getResource(name);
        }

        @Override
        public Enumeration<URL> getResources(String name) throws IOException {
            return getParent().getResources(name);
        }
    }
}
