package dunlin.runtime;

import com.aliyun.fc.runtime.Context;

/** What a call runs, whichever of the forms the user chose. */
interface Handler {
    void handle(Exchange call, Answer answer, Context context) throws Throwable;

    /** What runs before the first call or after the last. */
    interface Hook {
        void run(Context context) throws Throwable;
    }
}
