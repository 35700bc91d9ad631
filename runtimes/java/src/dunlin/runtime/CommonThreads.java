package dunlin.runtime;

import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.ForkJoinWorkerThread;

/**
 * Threads of the common pool that find the user's classes. Java's own give theirs the class loader of the command line,
 * which is ours, and services and resources looked up in a {@code CompletableFuture} would be missing.
 */
public final class CommonThreads implements ForkJoinPool.ForkJoinWorkerThreadFactory {
    private static volatile ClassLoader code;

    /** From now on, and before the pool is first used. */
    static void use(ClassLoader loader) {
        code = loader;
        System.setProperty("java.util.concurrent.ForkJoinPool.common.threadFactory", CommonThreads.class.getName());
    }

    @Override
    public ForkJoinWorkerThread newThread(ForkJoinPool pool) {
        return new Worker(pool);
    }

    private static final class Worker extends ForkJoinWorkerThread {
        Worker(ForkJoinPool pool) {
            super(pool);
            setContextClassLoader(code);
        }
    }
}
