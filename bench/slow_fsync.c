/* Makes a disk slow: every fsync and fdatasync of a program sleeps $BENCH_FSYNC_MS first.  For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int slowly(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *text = getenv("BENCH_FSYNC_MS");
    double ms = text ? atof(text) : 0;
    struct timespec pause = {(time_t)(ms / 1e3), (long)(ms * 1e6) % 1000000000L};
    if (ms > 0) nanosleep(&pause, NULL);
    return real(fd);
}

int fsync(int fd) { return slowly("fsync", fd); }

int fdatasync(int fd) { return slowly("fdatasync", fd); }
