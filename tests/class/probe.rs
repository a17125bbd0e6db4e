//! Put into the stub's `map_by_hand`: reports what it can reach, in the message of a panic.
{
    use std::fs;
    let mut reached = Vec::<String>::new();
    let hidden = ["/root/.ssh", "/home", "/etc/shadow", "/etc/passwd"];
    for path in ["@SOLUTION@", "@RESULT@", "@ANSWERS@", "@OTHER@"].iter().chain(&hidden) {
        if fs::metadata(path).is_ok() {
            reached.push(format!("sees {path}"));
        }
    }
    for path in ["@GRADER@", "@JUDGE@", "@PROGRAM@", "@DEPENDENCY@", "/usr/new", "/new", "/dev/new", "/proc/sys/kernel/core_pattern"] {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
        if file.is_ok() {
            reached.push(format!("writes {path}"));
        }
        if fs::remove_file(path).is_ok() {
            reached.push(format!("removes {path}"));
        }
    }
    if std::net::TcpStream::connect("@ADDRESS@").is_ok() {
        reached.push("connects".to_owned());
    }
    if let Ok(file) = fs::File::open("@DEPENDENCY@") {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: the call takes numbers.
        if unsafe { nix::libc::fcntl(fd, nix::libc::F_SETLEASE, nix::libc::F_WRLCK) } == 0 {
            reached.push("makes other sandboxes wait for a file".to_owned());
        }
    }
    // The families from AF_INET on: a network namespace does not isolate all of them. The kinds are SOCK_STREAM to
    // SOCK_SEQPACKET.
    for family in 2..64 {
        for kind in 1..=5 {
            // SAFETY: the call takes numbers.
            let socket = unsafe { nix::libc::socket(family, kind, 0) };
            if socket >= 0 {
                reached.push(format!("makes a socket of family {family}"));
                // SAFETY: the call takes a number, and nothing else owns the descriptor.
                unsafe { nix::libc::close(socket) };
            }
        }
    }
    // What the kernel limits for each user, in all sandboxes together.
    let mut timers = 0;
    let mut timer = [0_u8; size_of::<nix::libc::timer_t>()];
    // SAFETY: without an event, a timer sends SIGALRM when it is set, and none is. Its id is written to a local.
    while unsafe { nix::libc::timer_create(nix::libc::CLOCK_MONOTONIC, std::ptr::null_mut(), timer.as_mut_ptr().cast()) } == 0 {
        timers += 1;
        if timers > 2000 {
            reached.push("fills the queue of signals".to_owned());
            break;
        }
    }
    for number in 0..4 {
        let name = format!("/queue-{number}\0");
        let flags = nix::libc::O_RDWR | nix::libc::O_CREAT;
        let attributes = std::ptr::null_mut::<nix::libc::mq_attr>();
        // SAFETY: the name is a C string. Without attributes, the queue is an ordinary one.
        if unsafe { nix::libc::mq_open(name.as_ptr().cast(), flags, 0o600, attributes) } == -1 {
            break;
        }
        if number == 3 {
            reached.push("fills the message queues".to_owned());
        }
    }
    let calls = [nix::libc::SYS_inotify_init1, nix::libc::SYS_fanotify_init, nix::libc::SYS_add_key];
    for call in calls {
        // SAFETY: 0 is no flag, and stands for no text.
        let result = unsafe { nix::libc::syscall(call, 0, 0, 0, 0, 0) };
        if result >= 0 || nix::errno::Errno::last_raw() != nix::libc::EPERM {
            reached.push(format!("makes the call {call}"));
        }
    }
    let mut parameters = [0_u64; 15];
    // SAFETY: the array has the size of the structure that the call fills.
    let ring = unsafe { nix::libc::syscall(nix::libc::SYS_io_uring_setup, 1, &raw mut parameters) };
    if ring >= 0 {
        reached.push("makes an io_uring".to_owned());
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let is_ours = name.starts_with("judge") || name.starts_with("grader") || name.contains("::");
        if !name.is_empty() && path.join("environ").exists() && !is_ours {
            reached.push(format!("sees the process {}", name.trim()));
        }
        if path.ends_with("1") {
            if fs::read(path.join("environ")).is_ok() {
                reached.push("reads the judge's environment".to_owned());
            }
            // The judge's report is one of its descriptors.
            for fd in 0..100 {
                let fd = path.join("fd").join(fd.to_string());
                if fs::read_link(&fd).is_ok() || fs::OpenOptions::new().append(true).open(fd).is_ok() {
                    reached.push("opens a descriptor of the judge".to_owned());
                }
            }
        }
        if path.ends_with("1") && fs::OpenOptions::new().write(true).open(path.join("mem")).is_ok() {
            reached.push("writes the judge's memory".to_owned());
        }
    }
    let (kind, name) = (c"user".as_ptr(), c"class-secret".as_ptr());
    let keyring = nix::libc::KEY_SPEC_SESSION_KEYRING;
    // SAFETY: the texts end with zeros.
    let key = unsafe { nix::libc::syscall(nix::libc::SYS_keyctl, nix::libc::KEYCTL_SEARCH, keyring, kind, name, 0) };
    if key > 0 {
        reached.push("finds a key of the session".to_owned());
    }
    for (name, _) in std::env::vars() {
        if name == "CLASS_SECRET" {
            reached.push("knows the secret".to_owned());
        }
    }
    // More than the file systems in memory have.
    let mut written = 0;
    for number in 0..40 {
        written += fs::write(format!("/tmp/{number}"), vec![1; 8 << 20]).is_ok() as usize;
    }
    if written > 8 {
        reached.push(format!("writes {written} files of 8 MiB"));
    }
    panic!("It reached: [{}]", reached.join(", "));
}
