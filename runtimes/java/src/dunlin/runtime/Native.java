package dunlin.runtime;

import java.io.File;

/** The two things Java cannot do to its own process; see {@code native/process.c}. */
final class Native {
    static {
        System.load(new File(Main.class.getProtectionDomain().getCodeSource().getLocation().getPath())
                .getAbsoluteFile().getParent() + "/libdunlin_java.so");
    }

    private Native() {}

    /** Changes the working directory to a path that ends with NUL. Answers 0 or an errno. */
    static native int chdir(byte[] path);

    /** Replaces the environment by {@code NAME=value} texts, each ended by NUL. */
    static native void environment(byte[] block);
}
