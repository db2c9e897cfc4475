/* mark DISK SECTOR NUMBER: writes "mark NUMBER" to one sector of a disk, past the page cache, so that it stands in the disk's write
 * log where it was said. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char sector[512] __attribute__((aligned(4096)));
    int disk;

    if (argc != 4 || (disk = open(argv[1], O_WRONLY | O_DIRECT)) < 0) {
        perror("mark");
        return 1;
    }
    memset(sector, ' ', sizeof sector);
    sector[snprintf(sector, sizeof sector, "mark %s", argv[3])] = ' ';
    if (pwrite(disk, sector, sizeof sector, atoll(argv[2]) * 512) != sizeof sector) {
        perror("mark");
        return 1;
    }
    return 0;
}
