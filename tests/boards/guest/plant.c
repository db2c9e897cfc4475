/* plant SECONDS PACE_MS: fifty sensors at 1 Hz for so many seconds of their own time, as line protocol over one connection to
 * 127.0.0.1:8094; after each second's fifty readings it waits PACE_MS. The stamps are UTC from 2026-09-21 on. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(8094), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    long value[50] = { 0 }, seconds = argc == 3 ? atol(argv[1]) : 0, pace = argc == 3 ? atol(argv[2]) : 0;
    unsigned chance = 7;
    int out = socket(AF_INET, SOCK_STREAM, 0);
    FILE *lines;

    if (seconds == 0 || connect(out, (struct sockaddr *)&to, sizeof to) || !(lines = fdopen(out, "w"))) {
        perror("plant");
        return 1;
    }
    for (long second = 0; second < seconds; second++) {
        for (int sensor = 0; sensor < 50; sensor++) {
            /* A walk in hundredths, as a thermometer makes. */
            chance = chance * 1664525 + 1013904223;
            value[sensor] += (long)(chance >> 16) % 7 - 3;
            fprintf(lines, "hall/%d t=%ld.%02ld %ld000000000\n", sensor, 20 + labs(value[sensor]) / 100, labs(value[sensor]) % 100,
                    1790000000 + second);
        }
        if (pace > 0) {
            struct timespec wait = { pace / 1000, pace % 1000 * 1000000 };
            fflush(lines);
            nanosleep(&wait, NULL);
        }
    }
    return fclose(lines) != 0;
}
