/* Preloaded into a rebuild: moves the clock and turns folder listings around, so that a product
 * which depends on either comes out different and is seen. It calls the kernel directly where the
 * C library's function is the one replaced; libraries that do more than this hang some runtimes. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset_seconds(void) {
    static long known;
    static int asked;
    if (!asked) {
        const char *text = getenv("CLERESTORY_CLOCK_OFFSET");
        known = text ? atol(text) : 0;
        asked = 1;
    }
    return known;
}

static int is_wall(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && is_wall(clock))
        now->tv_sec += offset_seconds();
    return (int)result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return (time_t)-1;
    if (to)
        *to = exact.tv_sec;
    return exact.tv_sec;
}

/* One open folder whose entries were read ahead. */
struct listing {
    DIR *folder;
    struct dirent64 *entries;
    size_t left;
    struct listing *next;
};

static struct listing *listings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int is_reversed(void) {
    const char *text = getenv("CLERESTORY_LISTING");
    return text && strcmp(text, "reversed") == 0;
}

static void forget(DIR *folder) {
    for (struct listing **at = &listings; *at; at = &(*at)->next) {
        if ((*at)->folder == folder) {
            struct listing *gone = *at;
            *at = gone->next;
            free(gone->entries);
            free(gone);
            return;
        }
    }
}

static struct dirent64 *(*real_readdir(void))(DIR *) {
    return (struct dirent64 * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir64");
}

static struct listing *read_ahead(DIR *folder) {
    struct dirent64 *(*next)(DIR *) = real_readdir();
    struct listing *made = calloc(1, sizeof *made);
    size_t room = 0;
    struct dirent64 *entry;
    if (!next || !made) {
        free(made);
        return NULL;
    }
    while ((entry = next(folder))) {
        if (made->left == room) {
            room = room ? room * 2 : 64;
            struct dirent64 *more = realloc(made->entries, room * sizeof *more);
            if (!more)
                abort();
            made->entries = more;
        }
        memcpy(&made->entries[made->left], entry, entry->d_reclen);
        made->left++;
    }
    made->folder = folder;
    made->next = listings;
    listings = made;
    return made;
}

struct dirent64 *readdir64(DIR *folder) {
    struct listing *at;
    struct dirent64 *entry = NULL;
    if (!is_reversed())
        return real_readdir()(folder);
    pthread_mutex_lock(&lock);
    for (at = listings; at && at->folder != folder; at = at->next)
        ;
    if (!at)
        at = read_ahead(folder);
    if (at && at->left > 0)
        entry = &at->entries[--at->left];
    pthread_mutex_unlock(&lock);
    return entry;
}

/* On 64-bit Linux both structures are the same. */
struct dirent *readdir(DIR *folder) {
    return (struct dirent *)readdir64(folder);
}

void rewinddir(DIR *folder) {
    void (*real)(DIR *) = (void (*)(DIR *))dlsym(RTLD_NEXT, "rewinddir");
    pthread_mutex_lock(&lock);
    forget(folder);
    pthread_mutex_unlock(&lock);
    if (real)
        real(folder);
}

int closedir(DIR *folder) {
    int (*real)(DIR *) = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    pthread_mutex_lock(&lock);
    forget(folder);
    pthread_mutex_unlock(&lock);
    return real ? real(folder) : -1;
}
