//! Gives memory back that only the start needed.
//!
//! The start runs through most of the program once; the kernel then keeps those pages of program and libraries
//! mapped for as long as nobody else wants memory, and the allocator keeps what was freed. A daemon that mostly waits
//! can do without both.

use std::fs;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// Unmaps the program's code, and that of its libraries, until it is called again (from the page cache, without
/// disk), and returns freed memory to the kernel.
pub fn give_back() {
    trim();
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, length) in maps.lines().filter_map(code) {
        drop_pages(start, length);
    }
}

/// Place and length of a mapping of a file's code.
fn code(line: &str) -> Option<(NonNull<libc::c_void>, NonZeroUsize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode, _offset, _device, inode) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    // Code that can be written, or that no file backs, exists nowhere else.
    if mode != "r-xp" || inode == "0" || !fields.next()?.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let place = NonNull::new(std::ptr::with_exposed_provenance_mut(start))?;
    Some((place, NonZeroUsize::new(end.checked_sub(start)?)?))
}

#[expect(unsafe_code, reason = "no safe interface to madvise exists")]
fn drop_pages(start: NonNull<libc::c_void>, length: NonZeroUsize) {
    use nix::sys::mman::{MmapAdvise, madvise};
    // SAFETY: a private mapping of a file that is never written (`r-xp`): every page is read again from the file with
    // the same content. A range that was unmapped meanwhile is an error and nothing else.
    let given = unsafe { madvise(start, length.get(), MmapAdvise::MADV_DONTNEED) };
    if let Err(error) = given {
        tracing::trace!(%error, "code stays mapped");
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe interface to malloc_trim exists")]
fn trim() {
    // SAFETY: takes no pointer, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of files that are mapped.
    fn mapped() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("RssFile:")).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn code_is_unmapped_and_still_runs() {
        let before = mapped();
        give_back();
        let after = mapped();
        assert!(after < before, "{before} kB, then {after} kB");
    }

    #[test]
    fn only_code_of_files_is_taken() {
        let lines = [
            "55d0-55e0 r-xp 00001000 fe:00 4711 /usr/bin/x",
            "55d0-55e0 r-xp 00001000 fe:00 4711 /usr/bin/x y (deleted)",
            "55d0-55e0 r--p 00001000 fe:00 4711 /usr/bin/x",
            "55d0-55e0 rwxp 00001000 fe:00 4711 /usr/bin/x",
            "55d0-55e0 r-xs 00001000 fe:00 4711 /usr/bin/x",
            "55d0-55e0 r-xp 00000000 00:00 0 ",
            "55d0-55e0 r-xp 00000000 00:00 0 [vdso]",
            "55e0-55d0 r-xp 00001000 fe:00 4711 /usr/bin/x",
            "nonsense",
        ];
        let taken: Vec<bool> = lines.map(|line| code(line).is_some()).to_vec();
        assert_eq!(
            taken,
            [true, true, false, false, false, false, false, false, false]
        );
    }
}
