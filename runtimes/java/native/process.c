/* What a Java process cannot do to itself from Java: change its working directory, and change the environment that
 * native libraries see. Both happen once, before user code is loaded, while one thread of ours runs. */

#include <errno.h>
#include <jni.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

JNIEXPORT jint JNICALL Java_dunlin_runtime_Native_chdir(JNIEnv *env, jclass class, jbyteArray path) {
    (void)class;
    jbyte *bytes = (*env)->GetByteArrayElements(env, path, NULL);
    if (bytes == NULL) return ENOMEM;
    jint outcome = chdir((const char *)bytes) == 0 ? 0 : errno;
    (*env)->ReleaseByteArrayElements(env, path, bytes, JNI_ABORT);
    return outcome;
}

JNIEXPORT void JNICALL Java_dunlin_runtime_Native_environment(JNIEnv *env, jclass class, jbyteArray block) {
    (void)class;
    jsize length = (*env)->GetArrayLength(env, block);
    /* Kept for good: the environment points into it. */
    char *copy = malloc((size_t)length + 1);
    if (copy == NULL) return;
    (*env)->GetByteArrayRegion(env, block, 0, length, (jbyte *)copy);
    copy[length] = '\0';
    clearenv();
    for (char *at = copy; at < copy + length; at += strlen(at) + 1) putenv(at);
}
