package dunlin.runtime;

import com.aliyun.fc.runtime.FunctionComputeLogger;
import java.util.TimeZone;

/** Writes lines as contract section 6.4 has them: {@code 2022-04-11 02:38:32.008 [INFO] [request] message}. */
final class CallLogger implements FunctionComputeLogger {
    /** What is not worth writing; the same for all calls of an instance. */
    static final class Threshold {
        private volatile Level level = Level.INFO;
    }

    private final String requestId;
    private final Threshold threshold;

    CallLogger(String requestId, Threshold threshold) {
        this.requestId = requestId;
        this.threshold = threshold;
    }

    @Override
    public void trace(String message) {
        write(Level.TRACE, message);
    }

    @Override
    public void debug(String message) {
        write(Level.DEBUG, message);
    }

    @Override
    public void info(String message) {
        write(Level.INFO, message);
    }

    @Override
    public void warn(String message) {
        write(Level.WARN, message);
    }

    @Override
    public void error(String message) {
        write(Level.ERROR, message);
    }

    @Override
    public void fatal(String message) {
        write(Level.FATAL, message);
    }

    @Override
    public void setLogLevel(Level level) {
        threshold.level = level;
    }

    private void write(Level level, String message) {
        if (level.compareTo(threshold.level) >= 0) {
            StringBuilder line = new StringBuilder(64 + String.valueOf(message).length());
            appendTime(line, System.currentTimeMillis());
            line.append(" [").append(level).append("] [").append(requestId).append("] ").append(message);
            System.out.println(line);
        }
    }

    /** By hand: a formatter of the library would load some hundred classes for a function's first line. */
    static void appendTime(StringBuilder line, long utcMs) {
        long ms = utcMs + TimeZone.getDefault().getOffset(utcMs);
        long days = Math.floorDiv(ms, 86_400_000L);
        int rest = (int) Math.floorMod(ms, 86_400_000L);
        // Years that begin in March put the leap day last.
        long shifted = days + 719_468;
        long era = Math.floorDiv(shifted, 146_097);
        int ofEra = (int) Math.floorMod(shifted, 146_097L);
        int yearOfEra = (ofEra - ofEra / 1460 + ofEra / 36_524 - ofEra / 146_096) / 365;
        int ofYear = ofEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100);
        int march = (5 * ofYear + 2) / 153;
        int day = ofYear - (153 * march + 2) / 5 + 1;
        int month = march < 10 ? march + 3 : march - 9;
        long year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
        line.append(year);
        pad(line.append('-'), month, 2);
        pad(line.append('-'), day, 2);
        pad(line.append(' '), rest / 3_600_000, 2);
        pad(line.append(':'), rest / 60_000 % 60, 2);
        pad(line.append(':'), rest / 1000 % 60, 2);
        pad(line.append('.'), rest % 1000, 3);
    }

    private static void pad(StringBuilder line, int value, int digits) {
        for (int bound = digits == 3 ? 100 : 10; bound > value && bound > 1; bound /= 10) {
            line.append('0');
        }
        line.append(value);
    }
}
