// A server that does what the body of POST /invoke says, and says how it was started: linked statically, so that an image
// needs nothing else.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int argument_count;
static char **arguments;

static int failed(char *out, size_t room) { return snprintf(out, room, "%s", strerror(errno)); }

static int act(char *command, char *out, size_t room) {
    char *verb = strtok(command, " "), *path = strtok(NULL, " "), *rest = strtok(NULL, "");
    if (!verb) return snprintf(out, room, "nothing");
    if (!strcmp(verb, "args")) {
        int used = 0;
        for (int i = 0; i < argument_count; i++) used += snprintf(out + used, room - used, "%s%s", i ? " " : "", arguments[i]);
        return used;
    }
    if (!strcmp(verb, "cwd")) return getcwd(out, room) ? (int)strlen(out) : failed(out, room);
    if (!strcmp(verb, "ids")) {
        gid_t groups[64];
        int count = getgroups(64, groups), used = snprintf(out, room, "%d:%d", getuid(), getgid());
        for (int i = 0; i < count; i++) used += snprintf(out + used, room - used, ":%d", groups[i]);
        return used;
    }
    if (!path) return snprintf(out, room, "no path");
    if (!strcmp(verb, "env")) return snprintf(out, room, "%s", getenv(path) ? getenv(path) : "unset");
    if (!strcmp(verb, "read")) {
        int file = open(path, O_RDONLY | O_NONBLOCK);
        if (file < 0) return failed(out, room);
        int length = (int)read(file, out, room - 1);
        int error = errno;
        close(file);
        errno = error;
        return length < 0 ? failed(out, room) : length;
    }
    if (!strcmp(verb, "write")) {
        int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (file < 0) return failed(out, room);
        ssize_t length = write(file, rest ? rest : "", rest ? strlen(rest) : 0);
        close(file);
        return length < 0 ? failed(out, room) : snprintf(out, room, "written");
    }
    if (!strcmp(verb, "stat")) {
        struct stat seen;
        if (lstat(path, &seen)) return failed(out, room);
        return snprintf(out, room, "%06o %d:%d %ld", seen.st_mode, seen.st_uid, seen.st_gid, (long)seen.st_nlink);
    }
    if (!strcmp(verb, "remove")) return remove(path) ? failed(out, room) : snprintf(out, room, "removed");
    if (!strcmp(verb, "fill")) {
        static char block[1 << 20];
        int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        long written = 0, wanted = atol(rest ? rest : "0") << 20, got;
        errno = 0;
        while (file >= 0 && written < wanted && (got = write(file, block, sizeof block)) > 0) written += got;
        int error = errno;
        if (file >= 0) close(file);
        return snprintf(out, room, "%ld %s", written >> 20, strerror(error));
    }
    if (!strcmp(verb, "setuid")) return setuid(atoi(path)) ? failed(out, room) : snprintf(out, room, "%d", getuid());
    if (!strcmp(verb, "chroot")) return chroot(path) ? failed(out, room) : snprintf(out, room, "done");
    if (!strcmp(verb, "mount")) return mount("x", path, "tmpfs", 0, "") ? failed(out, room) : snprintf(out, room, "done");
    if (!strcmp(verb, "mknod")) return mknod(path, S_IFCHR | 0666, 0x501) ? failed(out, room) : snprintf(out, room, "done");
    if (!strcmp(verb, "exit")) exit(atoi(path));
    return snprintf(out, room, "what?");
}

static void serve(int peer) {
    static char request[1 << 16], answer[1 << 16], head[256];
    size_t held = 0;
    for (;;) {
        char *end;
        request[held] = 0;
        while (!(end = strstr(request, "\r\n\r\n"))) {
            ssize_t got = read(peer, request + held, sizeof request - 1 - held);
            if (got <= 0) return;
            held += got;
            request[held] = 0;
        }
        size_t length = 0, whole = end + 4 - request;
        for (char *line = request; line < end; line = strstr(line, "\r\n") + 2)
            if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
        while (held < whole + length) {
            ssize_t got = read(peer, request + held, sizeof request - 1 - held);
            if (got <= 0) return;
            held += got;
        }
        char command[8192] = {0};
        memcpy(command, request + whole, length < sizeof command ? length : sizeof command - 1);
        int size = !strncmp(request, "POST /invoke", 12) ? act(command, answer, sizeof answer)
                                                         : snprintf(answer, sizeof answer, "%.*s", (int)(strchr(request, '\r') - request), request);
        int head_size = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", size);
        if (write(peer, head, head_size) != head_size || write(peer, answer, size) != size) return;
        held -= whole + length;
        memmove(request, request + whole + length, held);
    }
}

int main(int count, char **given) {
    argument_count = count, arguments = given;
    const char *port = getenv("FC_CUSTOM_LISTEN_PORT");
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 9000)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) return 1;
    printf("listening as %d\n", getuid());
    fflush(stdout);
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (peer < 0) continue;
        serve(peer);
        close(peer);
    }
}
