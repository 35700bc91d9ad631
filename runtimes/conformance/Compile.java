import java.io.File;
import java.io.IOException;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.tools.JavaCompiler;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/**
 * Compiles the Java files of each directory named, where they are, in one process. What lies in {@code x.jar.src} becomes the
 * jar {@code x.jar} beside it first, which the rest is compiled with.
 */
class Compile {
    public static void main(String[] arguments) throws IOException {
        for (int i = 1; i < arguments.length; i++) {
            Path directory = Paths.get(arguments[i]);
            List<Path> jars = new ArrayList<>();
            for (Path source : find(directory, path -> path.toString().endsWith(".jar.src"))) {
                compile(source, source, List.of(Paths.get(arguments[0])));
                String name = source.toString();
                jars.add(pack(source, Paths.get(name.substring(0, name.length() - ".src".length()))));
            }
            jars.add(Paths.get(arguments[0]));
            compile(directory, directory, jars);
        }
    }

    private interface Wanted {
        boolean is(Path path);
    }

    private static List<Path> find(Path directory, Wanted wanted) throws IOException {
        try (Stream<Path> all = Files.walk(directory)) {
            return all.filter(wanted::is).sorted().collect(Collectors.toList());
        }
    }

    private static void compile(Path sources, Path target, List<Path> libraries) throws IOException {
        List<Path> files = find(sources, path -> path.toString().endsWith(".java") && !sources.relativize(path).toString().contains(".jar.src"));
        if (files.isEmpty()) {
            return;
        }
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        String path = libraries.stream().map(Path::toString).collect(Collectors.joining(File.pathSeparator));
        List<String> options = List.of("-nowarn", "-proc:none", "-encoding", "UTF-8", "-cp", path, "-d", target.toString());
        try (StandardJavaFileManager manager = compiler.getStandardFileManager(null, null, null)) {
            Iterable<? extends javax.tools.JavaFileObject> units = manager.getJavaFileObjectsFromPaths(files);
            if (!compiler.getTask(null, manager, null, options, null, units).call()) {
                System.exit(1);
            }
        }
    }

    private static Path pack(Path directory, Path jar) throws IOException {
        try (FileSystem files = FileSystems.newFileSystem(java.net.URI.create("jar:" + jar.toUri()), Map.of("create", "true"))) {
            for (Path path : find(directory, path -> Files.isRegularFile(path) && !path.toString().endsWith(".java"))) {
                Path entry = files.getPath("/").resolve(directory.relativize(path).toString());
                Files.createDirectories(entry.getParent());
                Files.copy(path, entry);
            }
        }
        return jar;
    }
}
