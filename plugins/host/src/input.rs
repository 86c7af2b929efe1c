//! Reads all of standard input or of a file, up to a limit.

use crate::wait;
use std::{ffi::c_int, fs, io::Read, os::unix::fs::OpenOptionsExt};

const PIECE: usize = 16 * 1024;

/// All of standard input as text; bytes that are not UTF-8 become U+FFFD, as in Go's JSON decoder.
pub fn read_all(limit: usize) -> Result<String, String> {
    let mut bytes = Vec::new();
    loop {
        match read_some(0, &mut bytes) {
            Ok(0) => return Ok(text(bytes)),
            Ok(_) if bytes.len() > limit => return Err(format!("it is longer than {limit} bytes")),
            Ok(_) => {}
            Err(libc::EINTR) => {}
            Err(libc::EAGAIN) => wait::Deadline::never().poll(&mut [wait::interest(0, libc::POLLIN)]).map(|_| ())?,
            Err(code) => return Err(wait::describe(code)),
        }
    }
}

/// A regular file: opening a FIFO would wait for its other end, and a device may never end.
pub fn read_file(path: &str, limit: u64) -> Result<String, String> {
    let described = |error: std::io::Error| error.raw_os_error().map_or_else(|| error.to_string(), wait::describe);
    let no_file = || "it is not a regular file".to_string();
    if !fs::metadata(path).map_err(described)?.is_file() {
        return Err(no_file());
    }
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(described)?;
    if !file.metadata().map_err(described)?.is_file() {
        return Err(no_file());
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(described)?;
    if bytes.len() as u64 > limit { Err(format!("it is longer than {limit} bytes")) } else { Ok(text(bytes)) }
}

/// One read(2) at the end of `bytes`: the number of bytes read (0 at the end of the stream), or errno.
pub fn read_some(fd: c_int, bytes: &mut Vec<u8>) -> Result<usize, c_int> {
    bytes.reserve(PIECE);
    let room = bytes.spare_capacity_mut();
    // SAFETY: the kernel writes at most `room.len()` bytes, and returns how many.
    let got = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
    if got < 0 {
        return Err(wait::errno());
    }
    unsafe { bytes.set_len(bytes.len() + got as usize) };
    Ok(got as usize)
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
