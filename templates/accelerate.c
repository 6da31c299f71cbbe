/* The compilers' front in an accelerated guest: `armvm accelerate` installs it as gcc, g++, cc, c++.
 *
 * It passes a compile step (-c) to the host, which compiles with the same version of the compiler,
 * and serves the files that the host asks for. Everything else, and whatever the host declines or
 * cannot compile, runs here with the guest's own compiler, so that errors are always its own.
 *
 * The host decides; this program only answers. A message is a byte and a 32-bit length, then data:
 *
 *   S  paths: send 56 bytes for each (kind, size, mtime s and ns, ctime s and ns, device ^ inode);
 *      kinds: 0 missing, 1 file, 2 directory, 3 other or unknown, 4 file with a shorter real path
 *   G  paths: send for each its size in 64 bits (all ones: cannot be read), then its bytes
 *   F  paths: as S, then as G
 *   W  path and data: write the file          E  text for standard error
 *   X  the exit code                          L  the reason to compile here
 *
 * With ARMVM_ACCELERATE=only in the environment, it prints the reason and fails instead.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define STATE "/run/armvm-accelerate"
#define LOST "the conversation with the host failed"
#define LONGEST (64u << 20)
/* Seconds for an answer: longer than the host lets a compiler run. */
#ifndef PATIENCE
#define PATIENCE 2400
#endif

static char **words;
static char own[PATH_MAX];

static void compile_here(const char *reason)
{
    const char *wish = getenv("ARMVM_ACCELERATE");

    if (wish != NULL && strcmp(wish, "only") == 0) {
        fprintf(stderr, "armvm accelerate: %s\n", reason);
        exit(125);
    }
    signal(SIGPIPE, SIG_DFL);
    words[0] = own; /* a bare name would lead the compiler to this program's directory */
    execv(own, words);
    fprintf(stderr, "%s: %s\n", own, strerror(errno));
    exit(127);
}

/* Say once for each build that the host is gone. A build is a process group. Without the directory,
   which is root's, it says nothing. */
static void say_once(const char *text)
{
    char stamp[128];
    int made;

    snprintf(stamp, sizeof stamp, STATE "/said/%d-%d", (int)getuid(), (int)getpgrp());
    made = open(stamp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (made >= 0) {
        close(made);
        fprintf(stderr, "armvm accelerate: %s; compiling in the guest\n", text);
    }
}

static void put(int host, const void *data, size_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t done = write(host, at, length);
        if (done <= 0)
            compile_here(LOST);
        at += done;
        length -= (size_t)done;
    }
}

static void get(int host, void *data, size_t length)
{
    char *at = data;
    while (length > 0) {
        ssize_t done = read(host, at, length);
        if (done <= 0)
            compile_here(LOST);
        at += done;
        length -= (size_t)done;
    }
}

static void put32(int host, uint32_t value)
{
    value = htonl(value);
    put(host, &value, sizeof value);
}

static void big64(unsigned char *into, uint64_t value)
{
    for (int at = 7; at >= 0; at--, value >>= 8)
        into[at] = (unsigned char)value;
}

static void put_word(int host, const char *word)
{
    put32(host, (uint32_t)strlen(word));
    put(host, word, strlen(word));
}

/* Return whether a path leads through a link to a shorter one, which the compiler shows instead for
   system headers. */
static int has_shorter_path(const char *path)
{
    char real[PATH_MAX];

    return strstr(path, "/../") == NULL && strstr(path, "/./") == NULL &&
           strstr(path, "//") == NULL && realpath(path, real) != NULL &&
           strlen(real) < strlen(path);
}

/* Answer for all paths in one write: the other end of the connection is an emulated sshd. */
static void tell_stats(int host, const char *paths, size_t length)
{
    size_t count = 0, at = 0;
    unsigned char *answer;

    for (const char *one = paths; one < paths + length; one += strlen(one) + 1)
        count++;
    answer = calloc(count ? count : 1, 56);
    if (answer == NULL)
        compile_here(LOST);
    for (const char *one = paths; one < paths + length; one += strlen(one) + 1, at++) {
        struct stat found;
        unsigned char *to = answer + 56 * at;
        if (stat(one, &found) != 0) {
            big64(to, errno == ENOENT || errno == ENOTDIR ? 0 : 3);
            continue;
        }
        big64(to, S_ISREG(found.st_mode) ? (has_shorter_path(one) ? 4 : 1)
                  : S_ISDIR(found.st_mode) ? 2 : 3);
        big64(to + 8, (uint64_t)found.st_size);
        big64(to + 16, (uint64_t)found.st_mtim.tv_sec);
        big64(to + 24, (uint64_t)found.st_mtim.tv_nsec);
        big64(to + 32, (uint64_t)found.st_ctim.tv_sec);
        big64(to + 40, (uint64_t)found.st_ctim.tv_nsec);
        big64(to + 48, (uint64_t)found.st_ino ^ ((uint64_t)found.st_dev << 40));
    }
    put(host, answer, 56 * count);
    free(answer);
}

static void tell_contents(int host, const char *paths, size_t length)
{
    for (const char *one = paths; one < paths + length; one += strlen(one) + 1) {
        int file = open(one, O_RDONLY | O_NONBLOCK);
        struct stat found;
        unsigned char size[8];
        char *content = NULL;
        ssize_t there = -1;

        if (file >= 0 && fstat(file, &found) == 0 && S_ISREG(found.st_mode) &&
            found.st_size <= LONGEST && (content = malloc((size_t)found.st_size + 1)) != NULL) {
            there = 0;
            while (there < found.st_size) {
                ssize_t more = read(file, content + there, (size_t)(found.st_size - there));
                if (more <= 0)
                    break;
                there += more;
            }
        }
        if (file >= 0)
            close(file);
        big64(size, there < 0 ? UINT64_MAX : (uint64_t)there);
        put(host, size, sizeof size);
        if (there > 0)
            put(host, content, (size_t)there);
        free(content);
    }
}

static void write_file(const char *message, size_t length)
{
    size_t name = strlen(message) + 1;
    struct stat there;
    int file;

    if (name > length)
        compile_here(LOST);
    /* As the compiler does: a new file, unless the target is not a file, for example /dev/null. */
    if (lstat(message, &there) == 0 && S_ISREG(there.st_mode))
        unlink(message);
    file = open(message, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0)
        compile_here(LOST);
    for (size_t at = name; at < length;) {
        ssize_t done = write(file, message + at, length - at);
        if (done <= 0)
            compile_here(LOST);
        at += (size_t)done;
    }
    if (close(file) != 0)
        compile_here(LOST);
}

/* Return whether root, or the user that ssh logs in as, listens on a port of the loopback address.
   Any user may do so once the service has ended, and this program does what the other end says. */
static int is_trusted(int port, int user)
{
    FILE *table = fopen("/proc/net/tcp", "re");
    char line[512];
    unsigned address, local, state;
    int owner, found = 0;

    if (table == NULL)
        return 0;
    while (!found && fgets(line, sizeof line, table) != NULL)
        found = sscanf(line, "%*d: %x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %d", &address, &local,
                       &state, &owner) == 4 &&
                address == htonl(INADDR_LOOPBACK) && local == (unsigned)port && state == 10 &&
                (owner == 0 || owner == user);
    fclose(table);
    return found;
}

static int connect_to(int port, int user)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_sec = PATIENCE};
    int host = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(host, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(host, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (host < 0 || !is_trusted(port, user) ||
        connect(host, (struct sockaddr *)&where, sizeof where) != 0 || !is_trusted(port, user))
        return -1;
    return host;
}

/* Return the port of the service if the state file knows this very compiler; 0 if not. *user* is
   who may listen there. */
static int service_port(int *user)
{
    FILE *state = fopen(STATE "/on", "re");
    struct stat compiler;
    long long size, changed;
    int port = 0, known = 0;

    if (state == NULL || stat(own, &compiler) != 0)
        return 0;
    if (fscanf(state, "%d %d", &port, user) != 2)
        port = 0;
    while (fscanf(state, "%lld %lld", &size, &changed) == 2)
        known |= size == compiler.st_size && changed == compiler.st_mtim.tv_sec;
    fclose(state);
    if (port != 0 && !known) {
        say_once("the compiler has changed (run it again on the host)");
        return 0;
    }
    return port;
}

/* Find the working directory, by the name that gcc writes into debug information: $PWD if that is
   right. It may lead through a link. */
static int find_directory(char *into, size_t size)
{
    const char *named = getenv("PWD");
    struct stat one, two;

    if (named != NULL && named[0] == '/' && strlen(named) < size && stat(named, &one) == 0 &&
        stat(".", &two) == 0 && one.st_ino == two.st_ino && one.st_dev == two.st_dev)
        return strcpy(into, named) != NULL;
    return getcwd(into, size) != NULL;
}

/* Variables that change what the compiler reads or writes. */
static int is_plain_environment(void)
{
    static const char *const names[] = {
        "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "GCC_EXEC_PREFIX",
        "COMPILER_PATH", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "GCC_COMPARE_DEBUG",
    };
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        if (getenv(names[at]) != NULL)
            return 0;
    return 1;
}

int main(int count, char **arguments)
{
    const char *slash = strrchr(arguments[0], '/');
    const char *name = slash ? slash + 1 : arguments[0];
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    char directory[PATH_MAX];
    int step = 0, port, user, host;

    words = arguments;
    snprintf(own, sizeof own, "/usr/bin/%s", name);
    for (int at = 1; at < count; at++)
        step |= strcmp(arguments[at], "-c") == 0;
    if (!step || !find_directory(directory, sizeof directory))
        compile_here("not a compile step (-c)");
    if (!is_plain_environment())
        compile_here("a variable such as CPATH is set");
    port = service_port(&user);
    if (port == 0)
        compile_here("off");
    signal(SIGPIPE, SIG_IGN);
    host = connect_to(port, user);
    if (host < 0) {
        say_once("the host does not answer");
        compile_here(LOST);
    }
    put(host, "ARMVMCC1", 8);
    put32(host, (uint32_t)count + 3);
    put_word(host, directory);
    put_word(host, isatty(2) ? "tty" : "");
    put_word(host, epoch ? epoch : "");
    put_word(host, name);
    for (int at = 1; at < count; at++)
        put_word(host, arguments[at]);
    for (;;) {
        unsigned char kind;
        uint32_t length;
        char *data;

        if (read(host, &kind, 1) != 1) {
            say_once("the host has gone");
            compile_here(LOST);
        }
        get(host, &length, sizeof length);
        length = ntohl(length);
        data = length <= 4 * LONGEST ? malloc((size_t)length + 1) : NULL;
        if (data == NULL)
            compile_here(LOST);
        get(host, data, length);
        data[length] = 0;
        switch (kind) {
        case 'S': tell_stats(host, data, length); break;
        case 'F': tell_stats(host, data, length); /* fall through */
        case 'G': tell_contents(host, data, length); break;
        case 'W': write_file(data, length); break;
        case 'E': put(2, data, length); break;
        case 'X': return atoi(data);
        case 'L': compile_here(data); break;
        default: compile_here(LOST);
        }
        free(data);
    }
}
