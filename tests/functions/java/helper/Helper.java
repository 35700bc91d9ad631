package mistakes;

/** Lies in a jar below lib. */
class Helper {
    static String help(String text) {
        return "helped " + text;
    }
}
