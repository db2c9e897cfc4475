/* ready PROGRAM ARGUMENTS…: what a service manager is to a service of Type=notify (sd_notify(3)). Says on standard output how long
 * after its start the program called itself ready, and its process; then waits for its end. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX, .sun_path = "/run/notify" };
    int messages = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char message[512];
    double begun;
    pid_t child;

    if (argc < 2 || bind(messages, (struct sockaddr *)&at, sizeof at)) {
        perror("ready");
        return 1;
    }
    setenv("NOTIFY_SOCKET", at.sun_path, 1);
    begun = now();
    child = fork();
    if (child == 0) {
        int log = open("/tmp/log", O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, 1);
        dup2(log, 2);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    for (;;) {
        ssize_t bytes = recv(messages, message, sizeof message - 1, 0);
        if (bytes < 0)
            return 1;
        message[bytes] = 0;
        if (strstr(message, "READY=1"))
            break;
    }
    printf("board: ready %.3f\n", now() - begun);
    fflush(stdout);
    {
        FILE *pid = fopen("/tmp/pid", "w");
        fprintf(pid, "%d\n", child);
        fclose(pid);
    }
    waitpid(child, NULL, 0);
    return 0;
}
