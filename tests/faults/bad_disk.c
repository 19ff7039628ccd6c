/*
 * A bad disk, for LD_PRELOAD: writing to some files fails at random, as long as a switch is on.
 *
 * BAD_DISK_FILES   the files: those whose path contains this
 * BAD_DISK_SWITCH  a file that holds how many calls in a thousand fail; without it, none does
 * BAD_DISK_POWER   a file that holds at how many calls in a thousand the power goes off; without it, at none
 *
 * write and pwrite fail with EIO or ENOSPC, or write only a part.  fsync and fdatasync fail with EIO, and what was
 * written since the last sync that worked may be gone then, as on file systems that drop such pages
 * [https://wiki.postgresql.org/wiki/Fsync_Errors].  Other threads and processes are spared nothing of this.
 *
 * When the power goes off, what was written since the last sync is gone, all of it or any part, and the process ends.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct undo {
    struct undo *before;
    dev_t device;
    ino_t file;
    int descriptor;
    off_t offset;
    size_t size;
    char bytes[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct undo *undos;
static unsigned int seed;

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

static unsigned int chance(unsigned int below) {
    if (!seed)
        seed = (unsigned int)time(NULL) ^ ((unsigned int)getpid() << 12);
    return (unsigned int)rand_r(&seed) % below;
}

static int is_meant(int descriptor) {
    const char *wanted = getenv("BAD_DISK_FILES");
    char link[64], path[4096];
    if (!wanted)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return path[0] == '/' && strstr(path, wanted) != NULL;
}

static int happens(const char *name) {
    const char *path = getenv(name);
    int descriptor = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char text[16] = "";
    if (descriptor < 0)
        return 0;
    ssize_t length = read(descriptor, text, sizeof text - 1);
    close(descriptor);
    return length > 0 && chance(1000) < (unsigned int)atoi(text);
}

/* Remember what a write is about to replace. */
static void remember(int descriptor, off_t offset, size_t size) {
    struct stat status;
    struct undo *undo = malloc(sizeof *undo + size);
    if (!undo || fstat(descriptor, &status)) {
        free(undo);
        return;
    }
    ssize_t there = pread(descriptor, undo->bytes, size, offset);
    memset(undo->bytes + (there > 0 ? there : 0), 0, size - (size_t)(there > 0 ? there : 0));
    undo->before = undos, undo->device = status.st_dev, undo->file = status.st_ino;
    undo->descriptor = descriptor, undo->offset = offset, undo->size = size;
    undos = undo;
}

/* The power goes off: take back what was not synced, all of it or a part, and end the process. */
static void lose_power(void) {
    unsigned int kept = chance(2) ? chance(100) : 0;
    for (struct undo *undo = undos; undo; undo = undo->before) {
        struct stat status;
        int is_open = !fstat(undo->descriptor, &status) && undo->device == status.st_dev && undo->file == status.st_ino;
        if (is_open && chance(100) >= kept)
            REAL(pwrite64)(undo->descriptor, undo->bytes, undo->size, undo->offset);
    }
    kill(getpid(), SIGKILL);
}

/* The end of a sync: forget what was written to a file, or take it back. */
static void settle(int descriptor, int is_lost) {
    struct stat status;
    if (fstat(descriptor, &status))
        return;
    for (struct undo **at = &undos; *at;) {
        struct undo *undo = *at;
        if (undo->device != status.st_dev || undo->file != status.st_ino) {
            at = &undo->before;
            continue;
        }
        if (is_lost && REAL(pwrite64)(descriptor, undo->bytes, undo->size, undo->offset) < 0)
            is_lost = 0;
        *at = undo->before;
        free(undo);
    }
}

static ssize_t put(int descriptor, const void *data, size_t size, off_t offset, int is_at) {
    if (!is_meant(descriptor))
        return is_at ? REAL(pwrite64)(descriptor, data, size, offset) : REAL(write)(descriptor, data, size);
    pthread_mutex_lock(&lock);
    if (happens("BAD_DISK_POWER"))
        lose_power();
    int failure = 0;
    if (happens("BAD_DISK_SWITCH")) {
        unsigned int kind = chance(3);
        failure = kind == 0 ? EIO : kind == 1 ? ENOSPC : 0;
        if (size > 1)
            size = 1 + chance((unsigned int)size - 1);
    }
    ssize_t done = -1;
    if (!failure) {
        remember(descriptor, is_at ? offset : lseek(descriptor, 0, SEEK_CUR), size);
        done = is_at ? REAL(pwrite64)(descriptor, data, size, offset) : REAL(write)(descriptor, data, size);
        failure = errno;
    }
    pthread_mutex_unlock(&lock);
    errno = failure;
    return done;
}

ssize_t write(int descriptor, const void *data, size_t size) { return put(descriptor, data, size, 0, 0); }

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return put(descriptor, data, size, offset, 1);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return put(descriptor, data, size, offset, 1);
}

static int synced(int descriptor, int (*sync_it)(int)) {
    if (!is_meant(descriptor))
        return sync_it(descriptor);
    pthread_mutex_lock(&lock);
    if (happens("BAD_DISK_POWER"))
        lose_power();
    int is_failure = happens("BAD_DISK_SWITCH");
    settle(descriptor, is_failure && chance(2));
    pthread_mutex_unlock(&lock);
    if (is_failure) {
        errno = EIO;
        return -1;
    }
    return sync_it(descriptor);
}

int fsync(int descriptor) { return synced(descriptor, REAL(fsync)); }

int fdatasync(int descriptor) { return synced(descriptor, REAL(fdatasync)); }
