/*
 * Preloaded into a worker (LD_PRELOAD): measures every wait for CPython's interpreter lock at its root, for known_mix.py.
 * CPython waits for that lock in pthread_cond_timedwait, in slices of sys.getswitchinterval(), and in pthread_cond_wait until
 * a thread to which it gave the lock up has it; its other locks are semaphores. From each wait the time is taken off in which
 * the thread could run but had no processor, as the kernel counts it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static __thread long long waited_ns;
static __thread int schedstat = -1;

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Of the calling thread, as the kernel counts them. */
static void read_schedstat(long long *processor_ns, long long *without_processor_ns) {
    char text[100], *rest = text;
    if (schedstat < 0) schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    ssize_t size = pread(schedstat, text, sizeof text - 1, 0);
    text[size > 0 ? size : 0] = 0;
    *processor_ns = strtoll(text, &rest, 10);
    *without_processor_ns = strtoll(rest, NULL, 10);
}

/*
 * Of the calling thread, since its start: processor time, time without a processor, waits for the lock. To be called without
 * letting go of the lock (ctypes.PyDLL), or the wait to have it back falls between the three.
 */
void thread_spent_ns(long long spent[3]) {
    read_schedstat(&spent[0], &spent[1]);
    spent[2] = waited_ns;
}

#define MEASURED(call)                                     \
    long long used, queued, used_after, queued_after;      \
    read_schedstat(&used, &queued);                        \
    long long began = now_ns();                            \
    int result = call;                                     \
    long long waited = now_ns() - began;                   \
    read_schedstat(&used_after, &queued_after);            \
    waited -= queued_after - queued;                       \
    if (waited > 0) waited_ns += waited;                   \
    return result

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    static int (*original)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (original == NULL) original = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    MEASURED(original(condition, mutex, until));
}

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    static int (*original)(pthread_cond_t *, pthread_mutex_t *);
    if (original == NULL) original = dlsym(RTLD_NEXT, "pthread_cond_wait");
    MEASURED(original(condition, mutex));
}
