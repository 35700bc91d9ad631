package dunlin.runtime;

/** A failure this bootstrap words itself: it has no stack of the user's. */
final class Failure extends Exception {
    private static final long serialVersionUID = 1;

    /** What the caller sees as {@code errorType}. */
    final String type;

    Failure(String type, String message) {
        super(message, null, false, false);
        this.type = type;
    }
}
