// What the kernel and glibc report about memory errors without any tool. A child makes each error.
//
// With the name of an error as its argument, the program makes that error itself, for a debugger or a sanitizer.

#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __GLIBC__

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// The volatile variables below keep the compiler from seeing the errors.
static char *allocate(size_t len)
{
    char *volatile block = malloc(len);
    return block;
}

static void release(char *block)
{
    char *volatile hidden = block;
    free(hidden);
}

static int read_byte(const char *byte)
{
    const char *volatile hidden = byte;
    return *(volatile const char *)hidden;
}

static void fill(char *block, size_t len)
{
    char *volatile hidden = block;
    for (size_t i = 0; i < len; i++)
        ((volatile char *)hidden)[i] = 'A';
}

static const char *unmapped(void)
{
    size_t len = (size_t)sysconf(_SC_PAGESIZE);
    char *page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(page != MAP_FAILED && munmap(page, len) == 0, "mmap");
    return page;
}

static volatile bool deeper = true;

static int recurse(int depth)
{
    volatile char frame[1024];
    frame[0] = (char)depth;
    return deeper ? recurse(depth + 1) + frame[0] : 0;
}

// ANCHOR: main
static void read_null(void) { read_byte(NULL); }
static void write_constant(void) { fill((char *)"text", 1); }
static void read_unmapped(void) { read_byte(unmapped()); }
static void recurse_endlessly(void) { recurse(1); }

static void free_twice(void)
{
    char *block = allocate(24);
    release(block);
    release(block);
}

static void free_inner(void)
{
    char *block = allocate(24);
    fill(block, 24);
    release(block + 8);
}

static void write_too_many(size_t len)
{
    char *block = allocate(24), *next = allocate(24);
    // Tries to get adjacent blocks. Their chunks have 32 bytes, except under a tool with its own malloc.
    for (int tries = 0; tries < 16 && next != block + 32; tries++) {
        block = next;
        next = allocate(24);
    }
    fill(block, len);
    release(block);
    release(next);
}

static void write_8_too_many(void) { write_too_many(24 + 8); }
static void write_1_too_many(void) { write_too_many(24 + 1); }

static void read_freed(void)
{
    char *block = allocate(24);
    release(block);
    read_byte(block);
}

static void read_uninitialised(void)
{
    char *block = allocate(24);
    if (read_byte(block) == 'A')
        puts("by chance");
    release(block);
}

static void lose(void) { allocate(24); }
// ANCHOR_END: main

static const struct {
    const char *name;
    void (*make)(void);
} errors[] = {
    {"read at address 0", read_null},
    {"write to constant data", write_constant},
    {"read after munmap", read_unmapped},
    {"endless recursion", recurse_endlessly},
    {"free twice", free_twice},
    {"free an inner address", free_inner},
    {"write 8 bytes too many", write_8_too_many},
    {"write 1 byte too many", write_1_too_many},
    {"read after free", read_freed},
    {"read uninitialised memory", read_uninitialised},
    {"lose a block", lose},
};

static const size_t count = sizeof errors / sizeof *errors;

// Prints the reason for a SIGSEGV.
static void print_code(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    const char *text = info->si_code == SEGV_MAPERR   ? "SEGV_MAPERR\n"
                       : info->si_code == SEGV_ACCERR ? "SEGV_ACCERR\n"
                                                      : "another si_code\n";
    if (write(STDERR_FILENO, text, strlen(text)) == -1)
        _exit(1);
}

// Makes an error in a child.
static void be_child(void (*make)(void), int errors_to)
{
    static char signal_stack[65536];
    struct rlimit stack = {1 << 20, 1 << 20}, core = {0, 0};
    stack_t alternative = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    // After the handler the access is repeated, and kills the child: SA_RESETHAND.
    struct sigaction action = {.sa_sigaction = print_code, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK};
    must(dup2(errors_to, STDERR_FILENO) != -1, "dup2");
    must(setrlimit(RLIMIT_STACK, &stack) == 0 && setrlimit(RLIMIT_CORE, &core) == 0, "setrlimit");
    must(sigaltstack(&alternative, NULL) == 0, "sigaltstack");
    must(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
    make();
    _exit(0);
}

// Lets a child make an error. Prints and returns the signal that killed it, or 0.
static int report(const char *name, void (*make)(void))
{
    int ends[2], status;
    char printed[4096];
    size_t len = 0;
    ssize_t got;
    must(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0)
        be_child(make, ends[1]);
    close(ends[1]);
    while ((got = read(ends[0], printed + len, sizeof printed - 1 - len)) > 0)
        len += (size_t)got;
    must(got == 0 && waitpid(child, &status, 0) == child, "child");
    close(ends[0]);
    // Keep the last line.
    if (len > 0)
        len--;
    printed[len] = '\0';
    const char *newline = strrchr(printed, '\n');
    const char *message = newline == NULL ? printed : newline + 1;
    if (!WIFSIGNALED(status)) {
        printf("%-26s exit status %d%s\n", name, WEXITSTATUS(status), message);
        return 0;
    }
    printf("%-26s SIG%s: %s\n", name, sigabbrev_np(WTERMSIG(status)), message);
    return WTERMSIG(status);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < count; i++) {
        if (argc < 2) {
            int signal = report(errors[i].name, errors[i].make);
            assert(signal == (i < 4 ? SIGSEGV : i < 7 ? SIGABRT : 0));
        } else if (strcmp(argv[1], errors[i].name) == 0) {
            errors[i].make();
        }
    }
    return 0;
}

#else

int main(void)
{
    puts("this program shows the messages of glibc's malloc");
    return 77;
}

#endif
