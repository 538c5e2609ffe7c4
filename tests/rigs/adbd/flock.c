/* flock [-snu] FD: the tool of that name in Android's toybox. Debian's busybox has none. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int how = LOCK_EX, now = 0, option;
    while ((option = getopt(argc, argv, "snu")) != -1) {
        if (option == 's') how = LOCK_SH;
        else if (option == 'n') now = LOCK_NB;
        else if (option == 'u') how = LOCK_UN;
        else return 2;
    }
    if (optind + 1 != argc) return 2;
    return flock(atoi(argv[optind]), how | now) == 0 ? 0 : 1;
}
