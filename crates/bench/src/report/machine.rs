//! The machine that the benchmark runs on.

use std::ffi::CStr;
use std::fs;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use nix::libc;
use serde::Serialize;

use crate::allocators::baseline::huge_page_mode;
use crate::child::meter::page_size;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub libc: String,
    pub kernel: String,
    pub cpus: usize,
    /// The average number of processes that were running or ready in the last minute.
    pub load: f64,
    /// The page size in bytes.
    pub page: usize,
    /// `always`, `madvise` or `never`; `none` if the kernel does not support huge pages.
    pub huge_pages: String,
}

impl Machine {
    pub fn detect() -> Result<Machine> {
        Ok(Machine {
            libc: libc_version(),
            kernel: kernel_version()?,
            load: load()?,
            cpus: available_parallelism()?.get(),
            page: page_size()?,
            huge_pages: huge_page_mode().unwrap_or_else(|| "none".to_owned()),
        })
    }
}

fn libc_version() -> String {
    // SAFETY: the function has no preconditions.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: glibc returns a constant, null-terminated string.
    let version = unsafe { CStr::from_ptr(version) };
    format!("glibc {}", version.to_string_lossy())
}

fn load() -> Result<f64> {
    let path = "/proc/loadavg";
    let averages = fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    let minute = averages
        .split(' ')
        .next()
        .and_then(|minute| minute.parse().ok());
    minute.with_context(|| format!("{path} does not begin with a number"))
}

fn kernel_version() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    // The suffix of a distribution is long and does not matter here.
    let version = release.trim().split('-').next().unwrap_or_default();
    Ok(format!("Linux {version}"))
}
