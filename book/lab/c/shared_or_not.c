// A parent sees its child's writes only through a shared mapping that was made before the fork.

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_uint *map(int kind)
{
    void *start = mmap(NULL, 2 * sizeof(atomic_uint), PROT_READ | PROT_WRITE,
                       kind | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        perror("mmap");
        exit(EXIT_FAILURE);
    }
    return start;
}

static void write_numbers(atomic_uint *numbers)
{
    atomic_store(&numbers[0], 100);
    atomic_store(&numbers[1], 200);
    assert(numbers[0] == 100 && numbers[1] == 200);
}

int main(void)
{
    // ANCHOR: main
    atomic_uint *shared = map(MAP_SHARED);
    atomic_uint *private = map(MAP_PRIVATE);
    pid_t child = fork();
    if (child == -1) {
        perror("fork");
        return EXIT_FAILURE;
    }
    if (child == 0) {
        write_numbers(shared);
        write_numbers(private);
        write_numbers(map(MAP_SHARED));
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) {
        fputs("the child failed\n", stderr);
        return EXIT_FAILURE;
    }
    atomic_uint *too_late = map(MAP_SHARED);
    printf("shared, mapped before the fork:   [%u, %u]\n", shared[0], shared[1]);
    printf("private, mapped before the fork:  [%u, %u]\n", private[0], private[1]);
    printf("shared, mapped by each after it:  [%u, %u]\n", too_late[0], too_late[1]);
    // ANCHOR_END: main
    assert(shared[0] == 100 && shared[1] == 200);
    assert(private[0] == 0 && private[1] == 0);
    assert(too_late[0] == 0 && too_late[1] == 0);
    return 0;
}
