//! Reads all of standard input, up to a limit.

use crate::wait;
use std::ffi::c_int;

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
