/* Threads with as little stack as asked for, which allocate. */
#include <pthread.h>
#include <stdlib.h>

static void *work(void *unused) { void *block = malloc(100); free(block); return unused; }

int go(long bytes, int threads) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    int failed = pthread_attr_setstacksize(&attributes, bytes);
    for (int i = 0; !failed && i < threads; i++) {
        pthread_t thread;
        failed = pthread_create(&thread, &attributes, work, 0);
        if (!failed) pthread_join(thread, 0);
    }
    return failed;
}
