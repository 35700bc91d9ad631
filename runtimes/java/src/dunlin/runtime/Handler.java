package dunlin.runtime;

import com.aliyun.fc.runtime.Context;
import java.io.InputStream;

/** What a call runs, whichever of the forms the user chose. */
interface Handler {
    void handle(InputStream event, Answer answer, Context context) throws Throwable;

    /** What runs before the first call or after the last. */
    interface Hook {
        void run(Context context) throws Throwable;
    }
}
