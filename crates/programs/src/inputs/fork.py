# A child has only the thread that called fork. It must be able to allocate, whatever the other threads were doing.
import os, socket, threading

done = False

def work():
    while not done:
        os.listdir("/proc/self")
        socket.getaddrinfo("127.0.0.1", 80, proto=socket.IPPROTO_TCP)
        [bytes(size) for size in range(0, 4000, 50)]

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(60):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        words = [f"{number}-{word}" * (word % 50) for word in range(500)]
        os.write(writer, f"child {number}: {sum(map(len, words))} {len(bytes(300000))}\n".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        print(pipe.read(), end="")
    if os.waitpid(child, 0)[1] != 0:
        print("child", number, "failed")
done = True
for thread in threads:
    thread.join()
