// Compares five kinds of shared memory: how another program can map each of them, and what removes it.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind { MEMFD, POSIX, SYSTEM_V, FILE_ON_DISK, ANONYMOUS };

// One page of memory that exists independently of a mapping.
struct object {
    enum kind kind;
    char name[128]; // how another program finds it: a path, a name or an id
    int memfd;
};

static size_t page;
static struct object *to_remove; // by an exit handler if the program fails

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static void set_size_and_close(int fd)
{
    must(fd != -1, "open");
    must(ftruncate(fd, (off_t)page) == 0, "ftruncate");
    must(close(fd) == 0, "close");
}

static void make(struct object *object, enum kind kind)
{
    char *name = object->name;
    size_t size = sizeof object->name;
    object->kind = kind;
    switch (kind) {
    case MEMFD:
        object->memfd = memfd_create("lab", MFD_CLOEXEC);
        must(object->memfd != -1 && ftruncate(object->memfd, (off_t)page) == 0, "memfd_create");
        // Processes of the same user can open this path as long as this process has the descriptor open.
        snprintf(name, size, "/proc/%d/fd/%d", (int)getpid(), object->memfd);
        break;
    case POSIX:
        snprintf(name, size, "/lab-c-%d", (int)getpid());
        set_size_and_close(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
        break;
    case SYSTEM_V: {
        int id = shmget(IPC_PRIVATE, page, IPC_CREAT | 0600);
        must(id != -1, "shmget");
        snprintf(name, size, "%d", id);
        break;
    }
    case FILE_ON_DISK:
        snprintf(name, size, "/tmp/lab-c-%d", (int)getpid());
        set_size_and_close(open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
        break;
    case ANONYMOUS:
        abort();
    }
    to_remove = object;
}

static int remove_object(struct object *object)
{
    to_remove = NULL;
    switch (object->kind) {
    case MEMFD: return close(object->memfd);
    case POSIX: return shm_unlink(object->name);
    case SYSTEM_V: return shmctl(atoi(object->name), IPC_RMID, NULL);
    default: return unlink(object->name);
    }
}

static void remove_after_failure(void)
{
    if (to_remove)
        remove_object(to_remove);
}

static char *map_fd(int fd)
{
    if (fd == -1)
        return NULL;
    char *start = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(start != MAP_FAILED, "mmap");
    must(close(fd) == 0, "close");
    return start;
}

// ANCHOR: map
// Maps the object with this name, as any other program can. Returns NULL and sets errno
// if there is no such object.
static char *map(enum kind kind, const char *name)
{
    switch (kind) {
    case MEMFD:
    case FILE_ON_DISK:
        return map_fd(open(name, O_RDWR));
    case POSIX:
        return map_fd(shm_open(name, O_RDWR, 0));
    default: {
        char *start = shmat(atoi(name), NULL, 0);
        return start == (void *)-1 ? NULL : start;
    }
    }
}
// ANCHOR_END: map

static char *map_anonymous(void)
{
    char *start = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Unmaps the page. munmap also detaches System V memory.
static void unmap(char *start)
{
    must(munmap(start, page) == 0, "munmap");
}

// The program that exec starts. It knows only the kind and the name of the object.
static int other_program(enum kind kind, const char *name)
{
    if (kind == ANONYMOUS) {
        char line[8192];
        int mapped = 0;
        FILE *maps = fopen("/proc/self/maps", "r");
        must(maps != NULL, "/proc/self/maps");
        while (fgets(line, sizeof line, maps))
            mapped |= strstr(line, "/dev/zero (deleted)") != NULL;
        must(fclose(maps) == 0, "/proc/self/maps");
        return mapped;
    }
    char *start = map(kind, name);
    must(start != NULL, "map");
    *(volatile char *)start = 42;
    return 42;
}

static int run_other_program(enum kind kind, const char *name)
{
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        char number[] = {(char)('0' + kind), '\0'};
        execl("/proc/self/exe", "choose_between", number, name, (char *)NULL);
        _exit(127);
    }
    int status;
    must(waitpid(child, &status, 0) == child && WIFEXITED(status), "child");
    return WEXITSTATUS(status);
}

int main(int count, char **arguments)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    if (count == 3)
        return other_program(arguments[1][0] - '0', arguments[2]);
    must(atexit(remove_after_failure) == 0, "atexit");
    printf("          mapped again  another program       removed\n");
    volatile char *first = map_anonymous();
    *first = 5;
    must(run_other_program(ANONYMOUS, "") == 0, "the other program has the mapping");
    unmap((char *)first);
    int zero = *map_anonymous();
    printf("anonymous            %d  cannot map it         with its last mapping\n", zero);
    assert(zero == 0);

    static const struct {
        enum kind kind;
        const char *title, *found_by;
        int expected;
    } kinds[] = {
        {MEMFD, "memfd", "descriptor", ENOENT},
        {POSIX, "POSIX shm", "name", ENOENT},
        {SYSTEM_V, "System V", "id", EINVAL},
        {FILE_ON_DISK, "file", "path", ENOENT},
    };
    for (int i = 0; i < 4; i++) {
        // ANCHOR: main
        struct object object;
        make(&object, kinds[i].kind);
        volatile char *start = map(object.kind, object.name);
        must(start != NULL, "map");
        *start = 5;
        unmap((char *)start);

        start = map(object.kind, object.name);
        must(start != NULL, "map");
        int remapped = *start;
        int wrote = run_other_program(object.kind, object.name);
        int seen = *start;
        unmap((char *)start);

        must(remove_object(&object) == 0, "remove");
        int after = map(object.kind, object.name) ? 0 : errno;
        printf("%-10s %11d  %d by its %-12s Err(%s)\n", kinds[i].title, remapped, seen,
               kinds[i].found_by,
               after == ENOENT ? "ENOENT" : after == EINVAL ? "EINVAL" : strerror(after));
        // ANCHOR_END: main
        assert(remapped == 5 && wrote == 42 && seen == 42 && after == kinds[i].expected);
    }
    return 0;
}
