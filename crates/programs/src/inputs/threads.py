# Only one thread at a time executes Python, so most calls of malloc do not meet. listdir, getaddrinfo and regcomp call
# malloc while other threads run.
import hashlib, os, queue, socket, threading

try:
    import ctypes
    libc = ctypes.CDLL(None)
except ImportError:
    libc = None

def compile_pattern():
    """Allocates and frees some hundred blocks in C."""
    pattern = ctypes.create_string_buffer(256)
    if libc.regcomp(pattern, b"(a|bc|[[:alpha:]])*(d|e|f){1,20}", 1) == 0:
        libc.regfree(pattern)

results = queue.Queue()

def work(number):
    digest = hashlib.sha256()
    for item in range(400):
        words = [f"{number}-{item}-{word}" * (1 + word % 40) for word in range(item % 60)]
        table = {word: len(word) for word in words}
        digest.update("".join(sorted(table)).encode())
        os.listdir("/proc/self")
        socket.getaddrinfo("127.0.0.1", 80, proto=socket.IPPROTO_TCP)
        if libc:
            compile_pattern()
        # The main thread frees it.
        results.put((number, item, [bytes(1 + item * 37 % 3000), words]))
    results.put((number, 400, digest.hexdigest()))

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
kept = {}
while sum(item == 400 for _, item in kept) < 4:
    number, item, value = results.get()
    kept[number, item] = value
    kept.pop((number, item - 50), None)
for thread in threads:
    thread.join()
for number in range(4):
    print(number, kept[number, 400], sum(len(kept[number, item][0]) for item in range(351, 400)))
