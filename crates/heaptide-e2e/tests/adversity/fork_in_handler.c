/* A timer's handler forks, whatever the thread is in the middle of, and the child goes on from there. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t children, is_child;

/* Once, some microseconds from now: a timer that repeats would strike again where it struck. */
static void arm(void)
{
    struct itimerval timer = {{0, 0}, {0, 40 + (children * 7919) % 211}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void handler(int number)
{
    (void)number;
    if (is_child || children >= 300)
        return;
    pid_t pid = fork();
    if (pid == 0)
        is_child = 1;
    else if (pid > 0) {
        children++;
        arm();
    }
}

/* Allocates until so many children are forked, and 1000 times more. Returns how many of them ended badly;
   a child returns -1. */
int churn_and_fork(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    arm();
    for (int more = 0; more < 1000;) {
        void *blocks[16];
        for (int i = 0; i < 16; i++)
            blocks[i] = malloc(100 + 37 * (unsigned)i);
        for (int i = 0; i < 16; i++)
            free(blocks[i]);
        if (is_child || children >= 300)
            more++;
    }
    if (is_child)
        return -1;
    int bad = 0, status;
    while (wait(&status) > 0)
        bad += status != 0;
    return bad;
}
