//! Formats values for sentences, transcripts and ledgers.

use nix::sys::signal::Signal;

/// `bytes` in the largest unit that divides them: `512 KiB`, `5000 bytes`.
pub fn size(bytes: u64) -> String {
    for (shift, unit) in [
        (60, "EiB"),
        (50, "PiB"),
        (40, "TiB"),
        (30, "GiB"),
        (20, "MiB"),
        (10, "KiB"),
    ] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    match bytes {
        1 => "1 byte".to_owned(),
        _ => format!("{bytes} bytes"),
    }
}

/// `1 child process`, `2 child processes`.
pub fn count(number: usize, noun: &str) -> String {
    match (number, noun.ends_with('s')) {
        (1, _) => format!("1 {noun}"),
        (_, true) => format!("{number} {noun}es"),
        (_, false) => format!("{number} {noun}s"),
    }
}

/// `SIGSEGV`; `signal 34` for a signal without a name.
pub fn signal(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_is_in_the_plural_unless_there_is_one() {
        let counts = [0, 1, 2].map(|number| count(number, "page fault"));
        assert_eq!(counts, ["0 page faults", "1 page fault", "2 page faults"]);
        assert_eq!(count(2, "child process"), "2 child processes");
    }

    #[test]
    fn sizes_use_the_largest_unit_that_divides_them() {
        assert_eq!(size(512 << 10), "512 KiB");
        assert_eq!(size(5000), "5000 bytes");
        assert_eq!(size(3 << 30), "3 GiB");
        assert_eq!(size(1), "1 byte");
    }
}
